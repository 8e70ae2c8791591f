"""Migrations that have their session look for names elsewhere: what is kept of a run stands where all look for it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_SETS = """\
def forwards(apps, editor):
    if editor.connection.vendor == "postgresql":
        editor.execute("CREATE SCHEMA IF NOT EXISTS extra")
        editor.execute("SET search_path TO extra, public")

def backwards(apps, editor):
    if editor.connection.vendor == "postgresql":
        editor.execute("DROP SCHEMA IF EXISTS extra CASCADE")
"""
_NOTED = migration(
    "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))",
    "migrations.RunPython(forwards, backwards)",
    after=[("demo", "0001_item")],
    functions=_SETS,
)
_NARROWED = migration(
    "migrations.RunPython(forwards, backwards)",
    "migrations.RemoveField('item', 'name')",
    after=[("demo", "0001_item")],
    functions=_SETS,
)
_OWN = "SELECT schemaname, tablename FROM pg_tables WHERE tablename LIKE 'smooth%%' AND schemaname <> 'public'"


@contextmanager
def _fleet(directory: Path, servers: tuple[PostgresServer, PostgresServer], release: dict[str, str]) -> Iterator[Fleet]:
    with small_fleet(directory, *servers, release) as fleet:
        # As in a database that no run has moved yet.
        for database in (fleet.first, fleet.last):
            with database.connect() as session:
                session.execute("DROP TABLE IF EXISTS smooth_migrations_marker, smooth_migrations_contract")
        yield fleet


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    return pg_server, second_pg_server


def _strays(fleet: Fleet) -> list[tuple[object, ...]]:
    """Return the tables of the product's that stand elsewhere than the others."""
    found: list[tuple[object, ...]] = []
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            found += session.execute(_OWN).fetchall()
    return found


def _new_ones(fleet: Fleet) -> list[str]:
    return [name for name, text in fleet.dumps().items() if "0002_" in text]


def test_a_phase_that_sets_the_search_path_is_taken_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, {"demo.0002_note": _NOTED}) as fleet:
        before = fleet.dumps(sequences=False)
        fleet.plan(deploy='expand_contract = false\ncommit = "phase"', shards='gate = ["false"]')

        failed = fleet.deploy()

        assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
        assert fleet.dumps(sequences=False) == before
        assert not _strays(fleet)


@pytest.mark.long
def test_a_run_that_sets_the_search_path_is_taken_back_by_rollback(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, {"demo.0002_note": _NOTED}) as fleet:
        fleet.plan()
        before = fleet.dumps(sequences=False)
        assert fleet.deploy().exit_code == 0
        assert not _strays(fleet)

        back = fleet.run("rollback")

        assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
        assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_what_such_a_run_holds_back_is_done_by_finalise(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, {"demo.0002_next": _NARROWED}) as fleet:
        fleet.plan(deploy="expand_contract = true")
        plan = fleet.directory / "deploy.toml"
        plan.write_text(f'{plan.read_text()}\n[finalise]\nbake_time = "0s"\n')
        assert fleet.deploy().exit_code == 0
        pending = [each["contract_pending"] for each in fleet.run("status").report["databases"]]
        assert pending == [["demo.0002_next: drop column demo_item.name"]] * 3

        done = fleet.run("finalise")

        assert (done.exit_code, done.outcomes) == (0, dict.fromkeys(("primary", "kiosk", LAST), "committed"))
        for database in (fleet.first, fleet.last):
            with database.connect() as session:
                columns = "SELECT column_name FROM information_schema.columns WHERE table_name = 'demo_item'"
                assert session.execute(columns).fetchall() == [("id",)]
        assert not _strays(fleet)


@pytest.mark.long
def test_steps_that_stand_without_a_mark_are_not_called_taken_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, {"demo.0002_note": NOTE}) as fleet:
        forgets = fleet.directory / "forgets.py"
        forgets.write_text(
            "import sys, psycopg\n"
            f"with psycopg.connect({fleet.first.dsn!r}) as session:\n"
            '    session.execute("DELETE FROM smooth_migrations_marker")\n'
            '    session.execute("UPDATE smooth_migrations_lease SET epoch = epoch + 1")\n'
            "sys.exit(1)\n"
        )
        fleet.plan(
            deploy='expand_contract = false\ncommit = "phase"', shards=f'gate = ["{sys.executable}", "forgets.py"]'
        )

        failed = fleet.deploy()

        assert (failed.exit_code, failed.report["outcome"]) == (4, "needs_operator"), failed.stderr
        # What was committed together goes back together, or not at all.
        assert failed.outcomes == {"primary": "in_doubt", "kiosk": "in_doubt", LAST: "rolled_back"}
        assert _new_ones(fleet) == ["primary", "kiosk"]
