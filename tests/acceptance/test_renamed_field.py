"""A field that gets another name on several databases at once, with two releases at work in between."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_RENAME = migration("migrations.RenameField('item', 'name', 'title')", after=[("demo", "0001_item")])
_OLD = "INSERT INTO demo_item (name) VALUES ('by the release before')"
_NEW = "INSERT INTO demo_item (title) VALUES ('by the new one')"
_NAMES = ["kite", "by the release before", "by the new one"]


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """A fleet of which the file has nothing to do, since nothing can be held back there."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_rename": _RENAME}) as found:
        found.migrate("kiosk", "--fake")
        found.plan(deploy="", servers='atomicity = "two_phase"')
        plan = found.directory / "deploy.toml"
        plan.write_text(f'{plan.read_text()}\n[finalise]\nbake_time = "0s"\n')
        yield found


def _serve(fleet: Fleet) -> None:
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            session.execute(_OLD)
            session.execute(_NEW)


def _names(fleet: Fleet, column: str) -> list[list[str]]:
    found = []
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            rows = session.execute(f"SELECT {column} FROM demo_item ORDER BY id".encode()).fetchall()
            found.append([name for (name,) in rows])
    return found


def test_both_names_are_used_until_it_is_finalised(fleet: Fleet) -> None:
    deployed = fleet.deploy()
    assert (deployed.exit_code, deployed.report["outcome"]) == (0, "committed"), deployed.stderr
    _serve(fleet)
    assert _names(fleet, "name") == _names(fleet, "title") == [_NAMES, _NAMES]

    finalised = fleet.run("finalise")

    assert (finalised.exit_code, finalised.report["outcome"]) == (0, "committed"), finalised.stderr
    assert _names(fleet, "title") == [_NAMES, _NAMES]
    dumps = fleet.dumps()
    assert not any("TRIGGER" in text or "FUNCTION" in text for text in dumps.values())


@pytest.mark.long
def test_a_rollback_before_that_keeps_what_both_have_written(fleet: Fleet) -> None:
    schema = fleet.dumps(applied=False)
    assert fleet.deploy().exit_code == 0
    _serve(fleet)

    back = fleet.run("rollback")

    assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    assert _names(fleet, "name") == [_NAMES, _NAMES]
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            session.execute("DELETE FROM demo_item WHERE name LIKE 'by %'")
    assert fleet.dumps(applied=False) == schema
