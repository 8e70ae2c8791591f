"""What happens from outside while a migration is at work: signals, other processes, a server that ends the session."""

import signal
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.failing_move import ROWS
from tests.support.failing_moves import ADD_NOTE, START, change
from tests.support.failure_cases import case
from tests.support.held_up import held_up, holding_up
from tests.support.histories import Database, Vendor, execute
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import Result, SmallProject, migration

_CODE = "migrations.RunPython(forwards, nothing)"
_SHELF = migration("migrations.CreateModel('Shelf', [('id', models.BigAutoField(primary_key=True))])")
_SERVERS = (Vendor.POSTGRESQL, Vendor.MYSQL)


def _project(directory: Path, database: Database, **migrations: str) -> SmallProject:
    """Return a project whose first migration is applied, with rows."""
    named = {f"demo.{name}": source for name, source in migrations.items()}
    project = SmallProject(
        directory / "project",
        {"default": database.django},
        {"demo.0001_start": START, "shelf.0001_initial": _SHELF, **named},
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    execute(database, ROWS)
    return project


def _last(body: str, *, atomic: bool = True) -> str:
    return migration(_CODE, after=[("demo", "0002_change")], functions=holding_up(body), atomic=atomic)


def _but_for_numbers(database: Database) -> str:
    """Return all but the times and ids of records, which depend on what else was recorded and taken back."""
    return dump(database.dsn, ignore_applied_times=True, blank={"django_migrations": ["id"]}, sequences=False)


@case(7, about="another app on a server", on=_SERVERS)
def test_what_another_process_applied_meanwhile_stays(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    project = _project(
        tmp_path, database, **{"0002_change": change(ADD_NOTE), "0003_fails": _last("raise ValueError('no')")}
    )
    reference = every_database.new()
    _project(tmp_path / "reference", reference).succeed("migrate", "shelf", "--verbosity=0")

    with held_up(project, tmp_path / "project", "demo") as call:
        project.succeed("migrate", "shelf", "--verbosity=0")
        result = call.end()

    assert "  Unapplying demo.0002_change... OK" in result.stdout.splitlines()
    _assert_told(result, every_database.vendor, "shelf.0001_initial")
    assert diff(_but_for_numbers(reference), _but_for_numbers(database)) == ""


@case(7, about="another app in one file", on=[Vendor.SQLITE])
def test_another_process_is_kept_out_by_the_writer_of_a_file(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    project = _project(
        tmp_path, database, **{"0002_change": change(ADD_NOTE), "0003_fails": _last("raise ValueError('no')")}
    )
    before = every_database.dump(database)

    with held_up(project, tmp_path / "project", "demo") as call:
        other = project.run("migrate", "shelf")
        result = call.end()

    assert "database is locked" in other.stderr
    assert result.returncode == 1, result.stderr
    assert diff(before, every_database.dump(database)) == ""


@pytest.mark.parametrize("atomic", [True, False], ids=["within a transaction", "outside"])
@case(7, about="the same migration")
def test_a_migration_that_another_process_has_applied_meanwhile_is_a_conflict(
    every_database: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    database = every_database.new()
    waits = change(_CODE, ADD_NOTE, functions=holding_up("pass"), atomic=atomic)
    project = _project(tmp_path, database, **{"0002_change": waits})
    if every_database.vendor is Vendor.SQLITE:
        # In its other modes a reader keeps the writer out.
        execute(database, "PRAGMA journal_mode = wal")

    with held_up(project, tmp_path / "project", "demo") as call:
        project.succeed("migrate", "demo", "--verbosity=0")
        applied = every_database.dump(database)
        result = call.end()

    _assert_told(result, every_database.vendor, "demo.0002_change", atomic=atomic)
    assert "OperationalError" in result.stderr or "ProgrammingError" in result.stderr
    assert diff(applied, every_database.dump(database)) == ""


@case(7, about="after a call that was killed", on=_SERVERS)
def test_what_another_process_applied_after_a_killed_call_stays(every_database: NewDatabases, tmp_path: Path) -> None:
    database = every_database.new()
    late = {
        "0002_change": change(ADD_NOTE, "migrations.RenameField('item', 'name', 'title')", atomic=False),
        "0003_fails": _last("raise ValueError('no')", atomic=False),
    }
    project = _project(tmp_path, database, **late)
    reference = every_database.new()
    _project(tmp_path / "reference", reference).succeed("migrate", "shelf", "--verbosity=0")
    with held_up(project, tmp_path / "project", "demo") as call:
        call.process.kill()
    project.succeed("migrate", "shelf", "--verbosity=0")

    result = project.run("apply_migrations", "demo")

    assert result.returncode == 1, result.stderr
    assert "Taking back what it left:" in result.stdout
    told = "another process has applied shelf.0001_initial meanwhile; the schema cannot be compared with what it was"
    assert told in result.stdout
    assert diff(_but_for_numbers(reference), _but_for_numbers(database)) == ""


def _assert_told(result: Result, vendor: Vendor, applied: str, *, atomic: bool = True) -> None:
    """Where no transaction kept the other process's work apart, the undo says that it is left."""
    held = vendor is Vendor.SQLITE or (vendor is Vendor.POSTGRESQL and atomic)
    assert result.returncode == (1 if held else 4), result.stderr
    assert held is (f"another process has applied {applied} meanwhile" not in result.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@case(14, about="a signal")
def test_a_call_that_a_signal_ends_undoes_what_it_did(
    number: signal.Signals, every_database: NewDatabases, tmp_path: Path
) -> None:
    database = every_database.new()
    project = _project(tmp_path, database, **{"0002_change": change(ADD_NOTE), "0003_fails": _last("pass")})
    before = every_database.dump(database)

    with held_up(project, tmp_path / "project") as call:
        call.process.send_signal(number)
        result = call.wait()

    assert result.returncode == 1
    assert "  Unapplying demo.0002_change... OK" in result.stdout.splitlines()
    assert result.stderr == f"CommandError: ended by {number.name}; what was done has been undone\n"
    assert diff(before, every_database.dump(database)) == ""


@pytest.mark.parametrize("atomic", [True, False], ids=["within a transaction", "outside"])
@case(23, about="the server ends every session", on=_SERVERS)
def test_a_call_whose_sessions_the_server_ended_is_undone_on_another(
    every_database: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    database = every_database.new()
    last = _last("editor.connection.cursor().execute('SELECT 1')", atomic=atomic)
    project = _project(tmp_path, database, **{"0002_change": change(ADD_NOTE), "0003_fails": last})
    before = every_database.dump(database)

    with held_up(project, tmp_path / "project") as call:
        _end_sessions(database)
        result = call.end()

    assert result.returncode == 1, result.stderr
    assert "  Unapplying demo.0002_change... OK" in result.stdout.splitlines()
    assert diff(before, every_database.dump(database)) == ""


def _end_sessions(database: Database) -> None:
    """Let the server end every session in a database, as when it restarts."""
    if isinstance(database, PostgresDatabase):
        execute(
            database,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        return
    assert isinstance(database, MariadbDatabase)
    with database.server.connect() as session, session.cursor() as cursor:
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [database.name])
        for (number,) in cursor.fetchall():
            cursor.execute(f"KILL {number}")
