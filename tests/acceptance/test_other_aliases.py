"""Migrations that reach another alias which the same deploy moves, where the plan allows that."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import NOTE, failing, run_python
from tests.support.small_project import migration

Servers = tuple[PostgresServer, PostgresServer]

_NOTE = "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))"
_FAILS_LAST = failing("if editor.connection.alias == 'shard_1': raise ValueError('no')")


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> Servers:
    return pg_server, second_pg_server


def _stray(at: str, to: str) -> str:
    """Return a function that at one alias writes a row to another."""
    return run_python(
        f"if editor.connection.alias == {at!r}: "
        f"apps.get_model('demo', 'Item').objects.using({to!r}).get_or_create(name='stray')"
    )


def _writes(at: str, to: str) -> str:
    """Return demo.0002_note, which at one alias writes a row to another, whose table is still or already alike."""
    write = "migrations.RunPython(forwards, nothing)"
    operations = (_NOTE, write) if to == "default" else (write, _NOTE)
    return migration(*operations, after=[("demo", "0001_item")], functions=_stray(at, to))


@contextmanager
def _allowing(directory: Path, servers: Servers, **release: str) -> Iterator[Fleet]:
    with small_fleet(directory, *servers, {f"demo.{name}": source for name, source in release.items()}) as fleet:
        plan = directory / "deploy.toml"
        allowed = 'other_aliases = "allow"\nbind_default = false\nproject = '
        plan.write_text(plan.read_text().replace("\nproject = ", f"\n{allowed}"))
        yield fleet


def _names(database: PostgresDatabase) -> list[str]:
    with database.connect() as session:
        return [name for (name,) in session.execute("SELECT name FROM demo_item ORDER BY id")]


@pytest.mark.long
def test_aliases_that_may_be_reached_and_are_not_are_committed_each(servers: Servers, tmp_path: Path) -> None:
    with _allowing(tmp_path, servers, **{"0002_note": NOTE}) as fleet:
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.named("recover.started")) == (0, []), outcome.stderr
        assert all("0002_note" in text for text in fleet.dumps().values())


@pytest.mark.long
def test_what_is_written_to_an_alias_of_an_earlier_phase_is_committed_with_it(servers: Servers, tmp_path: Path) -> None:
    with _allowing(tmp_path, servers, **{"0002_note": _writes("shard_1", "default")}) as fleet:
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.named("recover.started")) == (0, []), outcome.stderr
        assert all("0002_note" in text for text in fleet.dumps().values())
        assert (_names(fleet.first), _names(fleet.last)) == (["kite", "stray"], ["kite"])


@pytest.mark.long
def test_what_is_written_to_an_alias_of_an_earlier_phase_is_written_once_however_often_that_is_tried(
    servers: Servers, tmp_path: Path
) -> None:
    once_locked = migration(
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0002_note")],
        functions="tried = []\n\n"
        + run_python(
            "if editor.connection.alias == 'shard_1' and not tried: tried.append(1) or editor.execute("
            '"DO $$ BEGIN RAISE lock_not_available; END $$")'
        ),
    )
    release = {
        "0002_note": _writes("shard_1", "default").replace("get_or_create", "create"),
        "0003_locked": once_locked,
    }
    with _allowing(tmp_path, servers, **release) as fleet:
        outcome = fleet.deploy()
        assert (outcome.exit_code, len(outcome.named("lock.retry"))) == (0, 1), outcome.stderr
        assert _names(fleet.first) == ["kite", "stray"]


@pytest.mark.long
def test_what_is_written_to_an_alias_of_an_earlier_phase_is_undone_with_a_failure(
    servers: Servers, tmp_path: Path
) -> None:
    release = {"0002_note": _writes("shard_1", "default"), "0003_kind": _FAILS_LAST}
    with _allowing(tmp_path, servers, **release) as fleet:
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert fleet.dumps() == before


@pytest.mark.parametrize("writer", ["default", "kiosk"])
def test_what_is_written_to_an_alias_that_is_moved_later_is_an_error_and_not_lost(
    servers: Servers, tmp_path: Path, writer: str
) -> None:
    with _allowing(tmp_path, servers, **{"0002_note": _writes(writer, "shard_1")}) as fleet:
        _one_by_one(fleet)
        before = fleet.dumps()
        outcome = fleet.deploy()
        _assert_refused(outcome, f"demo.0002_note of {writer!r}")
        assert fleet.dumps() == before


def test_what_is_written_to_it_is_an_error_also_where_another_target_has_only_read_there(
    servers: Servers, tmp_path: Path
) -> None:
    write = "migrations.RunPython(forwards, nothing)"
    reads = run_python(
        "if editor.connection.alias == 'default': list(apps.get_model('demo', 'Item').objects.using('shard_1'))"
    )
    release = {
        "0002_look": migration(write, after=[("demo", "0001_item")], functions=reads),
        "0003_stray": migration(write, after=[("demo", "0002_look")], functions=_stray("kiosk", "shard_1")),
    }
    with _allowing(tmp_path, servers, **release) as fleet:
        _one_by_one(fleet)
        before = fleet.dumps()
        outcome = fleet.deploy()
        _assert_refused(outcome, "demo.0003_stray of 'kiosk'")
        assert fleet.dumps() == before


def _one_by_one(fleet: Fleet) -> None:
    """Let one worker do it all."""
    plan = fleet.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('name = "canary"', 'name = "canary"\nparallel = 1'))


def _assert_refused(outcome: Outcome, writer: str) -> None:
    assert (outcome.exit_code, outcome.outcomes[LAST]) == (1, "failed"), outcome.stderr
    assert outcome.report["error"]["message"] == (
        f"migration {writer} has written to the alias 'shard_1', which is to be migrated after it"
    )


def _beside(fleet: Fleet, **plan: str) -> Path:
    """Give a fleet an alias that no target is, and return its file."""
    file = fleet.directory / "beside.sqlite3"
    fleet.databases["beside"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file)}
    fleet.plan(**plan)
    return file


def _tables(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as session:
        return [name for (name,) in session.execute("SELECT name FROM sqlite_schema WHERE name = 'written'")]


_WRITES_BESIDE = run_python(
    "if editor.connection.alias != 'shard_1': return\n"
    "    with __import__('django.db', fromlist=['connections']).connections['beside'].cursor() as cursor:\n"
    "        cursor.execute('CREATE TABLE IF NOT EXISTS written (number)')"
)
_BESIDE = {
    "demo.0002_note": migration(
        _NOTE, "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=_WRITES_BESIDE
    )
}


@pytest.mark.long
def test_what_is_written_to_an_alias_of_no_target_keeps_its_target_from_being_prepared(
    servers: Servers, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, *servers, _BESIDE) as fleet:
        file = _beside(fleet, servers='other_aliases = "allow"')

        outcome = fleet.run("deploy")

        assert outcome.exit_code == 0, outcome.stderr
        tiers = {entry["database"]: entry["tier"] for entry in outcome.report["databases"]}
        assert (tiers["primary"], tiers[LAST]) == ("two_phase", "held_open")
        assert _tables(file) == ["written"]
        assert all("0002_note" in text for text in fleet.dumps().values())


@pytest.mark.long
def test_where_it_must_be_prepared_nothing_is_moved(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, _BESIDE) as fleet:
        file = _beside(fleet, servers='other_aliases = "allow"\natomicity = "two_phase"')
        before = fleet.dumps()

        outcome = fleet.run("deploy")

        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.report["error"]["message"] == (
            "migration demo.0002_note of 'shard_1' has written to the alias 'beside', whose transaction cannot be "
            "prepared with it"
        )
        assert _tables(file) == []
        assert fleet.dumps() == before
