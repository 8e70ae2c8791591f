"""Looks at databases that do not answer: named, bounded in time, and never called up to date."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """Databases with a migration to come."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


@pytest.mark.parametrize(("command", "key"), [("plan", "migrations"), ("status", "pending")])
def test_a_database_that_is_away_is_not_called_up_to_date(fleet: Fleet, command: str, key: str) -> None:
    fleet.databases["shard_1"]["PORT"] = "1"
    outcome = fleet.run(command)
    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    assert [error["place"] for error in outcome.report["errors"]] == [LAST]
    primary, kiosk, last = outcome.report["databases"]
    assert (len(primary[key]), len(kiosk[key]), last[key]) == (1, 1, None)
    assert (primary["tier"], last["tier"]) == ("two_phase", None)


def test_a_server_that_takes_a_connection_and_says_nothing_is_given_up(fleet: Fleet) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        fleet.databases["shard_1"]["PORT"] = str(silent.getsockname()[1])
        outcome = fleet.run("check")
    assert outcome.exit_code == 3, outcome.stderr
    assert [error["place"] for error in outcome.report["errors"]] == [LAST]


def test_a_lock_on_the_record_of_migrations_is_not_waited_for_without_end(fleet: Fleet) -> None:
    before = fleet.dumps()
    with fleet.last.connect() as session, session.transaction():
        session.execute("LOCK TABLE django_migrations IN ACCESS EXCLUSIVE MODE")
        outcome = fleet.run("check")
    assert outcome.exit_code == 3, outcome.stderr
    ((place, message),) = [(error["place"], error["message"]) for error in outcome.report["errors"]]
    assert place == LAST
    assert "lock timeout" in message
    assert fleet.dumps() == before
