"""A fleet of which the deploy and the project have long names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.machines import FleetOfMachines, fleet_of_machines
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import ITEM, NOTE

pytestmark = pytest.mark.timeout(180)

_DEPLOY: Final = "shop-production-europe-central"
_PROJECT: Final = "storefront_with_its_warehouses"


@pytest.fixture
def fleet(pg_server: PostgresServer, tmp_path: Path) -> Iterator[FleetOfMachines]:
    """One database, of a plan with these names."""
    with fleet_of_machines(tmp_path, [pg_server], 1, {"demo.0001_item": ITEM, "demo.0002_note": NOTE}) as fleet:
        plan = fleet.many.directory / "deploy.toml"
        text = plan.read_text().replace('name = "many"', f'name = "{_DEPLOY}"')
        text = text.replace("[projects.one]", f"[projects.{_PROJECT}]").replace('"one"', f'"{_PROJECT}"')
        plan.write_text(text)
        yield fleet


def test_its_machines_take_up_work_and_are_listed_by_their_projects(fleet: FleetOfMachines) -> None:
    machine = fleet.start("--concurrency", "1")

    outcome = fleet.many.run("deploy")
    status = fleet.many.run("status")

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert fleet.many.new() == 1
    assert [(each["worker"], each["projects"]) for each in status.report["workers"]] == [(machine.name, [_PROJECT])]
