"""A database that is restored in the place of one that an interrupted run was at work on."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY, dumps_of

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "held_open"')
        yield fleet


def _restore(fleet: Fleet, name: str) -> None:
    """Put a copy in the place of a database, as pg_restore into a new one does."""
    with psycopg.connect(fleet.last.server.dsn("postgres"), autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{name}_old"'.encode())
        admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{name}_old"'.encode())
        admin.execute(f'DROP DATABASE "{name}_old"'.encode())


def test_a_run_ends_without_it_where_an_operator_says_so(fleet: Fleet) -> None:
    before = dumps_of(fleet)
    assert fleet.run("deploy", failpoint="journal.decision.before").exit_code == -9
    fleet.wait_until_alone()
    _restore(fleet, fleet.last.name)

    asked = fleet.run("recover")

    assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
    error = asked.report["error"]
    assert error["message"].startswith(f"{LAST} is not in this plan: it was another database in the run ")
    assert "--abort" in error["hint"]
    settled = fleet.run("recover", "--abort")
    assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
    assert [each["message"] for each in settled.report["errors"]] == [error["message"]]
    assert dumps_of(fleet) == before
    assert fleet.run("recover").report["outcome"] == "nothing_to_do"
    assert fleet.deploy().exit_code == 0
    assert all("0002_note" in text for text in dumps_of(fleet).values())
