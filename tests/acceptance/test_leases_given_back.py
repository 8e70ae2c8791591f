"""A run that ends leaves no lease behind, whoever held it and was killed: who comes next need not wait for its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND, NOTE

pytestmark = pytest.mark.timeout(120)

_LEASED = "SELECT owner FROM smooth_migrations_lease WHERE owner <> ''"
_RELEASE = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, _RELEASE) as fleet:
        fleet.plan(servers='atomicity = "two_phase"')
        yield fleet


def _leased(fleet: Fleet) -> list[str]:
    found: list[str] = []
    for database in fleet.on_servers:
        with database.connect() as session:
            found += [owner for (owner,) in session.execute(_LEASED).fetchall()]
    return found


@pytest.mark.parametrize("point", ["journal.decision.before", "journal.decision.after"])
def test_what_recover_settles_is_given_back(fleet: Fleet, point: str) -> None:
    fleet.kill("deploy", point)
    assert len(_leased(fleet)) == len(fleet.on_servers)

    outcome = fleet.run("recover")

    assert outcome.exit_code == 0, outcome.stderr
    assert not fleet.prepared()
    assert _leased(fleet) == []


def test_what_is_rolled_back_is_given_back(fleet: Fleet) -> None:
    with fleet.last.connect() as session:
        session.execute("ALTER TABLE demo_item ADD COLUMN note text")

    outcome = fleet.run("deploy")

    assert outcome.exit_code == 1, outcome.stderr
    assert not fleet.prepared()
    assert _leased(fleet) == []
