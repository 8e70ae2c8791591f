"""Machines of a fleet that are stopped, one after the other, while a run goes on: what they have prepared stays."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.leases import until
from tests.support.machines import FleetOfMachines, fleet_of_machines
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_COUNT: Final = 3
# It ends when the test lets that of its database.
_WAITS: Final = """
import os
import time


def wait(apps, editor):
    while not os.path.exists(os.path.join(os.environ["SMALL_GO"], editor.connection.alias)):
        time.sleep(0.02)
"""
_RELEASE: Final = {
    "demo.0001_item": ITEM,
    "demo.0002_note": migration(
        "migrations.AddField('item', 'note', models.CharField(max_length=9, default=''))",
        "migrations.RunPython(wait, migrations.RunPython.noop)",
        functions=_WAITS,
        after=[("demo", "0001_item")],
    ),
}
_LEASED: Final = "SELECT owner FROM smooth_migrations_lease WHERE owner <> ''"
_EXPIRES: Final = "SELECT expires_at FROM smooth_migrations_lease"
_ROOM: Final = "SELECT sum(concurrency)::int FROM smooth_fleet_machine"


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server for the databases and the queue."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture
def fleet(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetOfMachines]:
    """A fleet whose migrations each end once there is a file of their alias."""
    monkeypatch.setenv("SMALL_GO", str(tmp_path))
    with fleet_of_machines(tmp_path, [server], _COUNT, dict(_RELEASE)) as fleet:
        yield fleet


def test_what_a_machine_has_prepared_stays_with_its_run(fleet: FleetOfMachines, tmp_path: Path) -> None:
    machines = {machine.name: machine for machine in (fleet.start("--concurrency", "1") for _ in range(2))}
    with fleet.many.running() as run:
        first, second = (run.wait_for("migration.started") for _ in range(2))
        # Its worker has no more than that, and the third database waits for the other one's.
        drained = machines[first["worker"]]
        drained.process.terminate()
        until(lambda: fleet.rows(_ROOM) == [(1,)])
        (tmp_path / first["alias"]).touch()
        run.wait_for("database.prepared", database=first["database"])
        assert drained.process.wait(timeout=60) == 0
        (database,) = (each for each in fleet.many.databases if each.name.endswith(first["alias"][-2:]))
        with database.connect() as session:
            before = session.execute(_EXPIRES).fetchone()
            until(lambda: session.execute(_EXPIRES).fetchone() != before)
        for alias in (second["alias"], *(f"shard_{number}" for number in range(_COUNT))):
            (tmp_path / alias).touch()
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert fleet.many.new() == _COUNT
    assert not fleet.many.prepared()
    # Whose worker has gone has its lease given back all the same.
    assert fleet.many.rows(_LEASED) == [[]] * _COUNT
