"""A call that fails changes nothing, also where every DDL statement is a commit."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.failing_moves import MOVES, START, FailingMove, change
from tests.support.histories import Database, execute
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import BROKEN, ITEM, NOTE, SLOW_TO_FAIL, failing, run_python
from tests.support.small_project import SmallProject, migration

_SOUND = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
_ENDS_WITHIN_S = 10


def _is_undone(databases: NewDatabases, directory: Path, move: FailingMove, *, returncode: int) -> None:
    database = databases.new()
    project = SmallProject(
        directory / "project", {"default": database.django}, move.migrations, installed=move.installed
    )
    for path, text in move.files.items():
        project.write(path, text)
    if move.applied is not None:
        project.succeed("migrate", *move.applied, "--verbosity=0")
    if move.rows:
        execute(database, move.rows)
    for path, text in move.later.items():
        project.write(path, text)
    before = databases.dump(database)

    result = project.run("apply_migrations", *move.arguments)

    assert result.returncode == returncode, result.stderr
    assert diff(before, databases.dump(database)) == ""


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(
            move,
            id=move.name,
            marks=[pytest.mark.xfail(strict=True, raises=AssertionError, reason=move.not_yet)] if move.not_yet else [],
        )
        for move in MOVES
    ],
)
def test_a_failure_changes_nothing_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path, move: FailingMove
) -> None:
    _is_undone(mariadb_databases, tmp_path, move, returncode=3 if move.refused else 1)


@pytest.mark.long
@pytest.mark.parametrize("move", [pytest.param(move, id=move.name) for move in MOVES])
def test_a_failure_changes_nothing_where_ddl_is_rolled_back(
    databases: NewDatabases, tmp_path: Path, move: FailingMove
) -> None:
    _is_undone(databases, tmp_path, move, returncode=1)


@pytest.mark.parametrize("body", ["raise KeyboardInterrupt", "raise SystemExit(7)"])
def test_a_migration_that_ends_the_process_is_undone_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path, body: str
) -> None:
    database = mariadb_databases.new()
    project = _at_first(tmp_path, database, failing(body))
    before = mariadb_databases.dump(database)

    assert project.run("apply_migrations").returncode in {7, -signal.SIGINT}

    assert diff(before, mariadb_databases.dump(database)) == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_code_of_a_migration_runs_undoes_the_call_in_mariadb(
    number: signal.Signals, mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database = mariadb_databases.new()
    project = _at_first(tmp_path, database, SLOW_TO_FAIL)
    before = mariadb_databases.dump(database)

    with project.start("apply_migrations") as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        process.send_signal(number)
        _stdout, stderr = process.communicate()

    assert stderr == f"CommandError: ended by {number.name}; what was done has been undone\n"
    assert diff(before, mariadb_databases.dump(database)) == ""


def test_a_signal_while_a_statement_runs_breaks_it_off_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database = mariadb_databases.new()
    assert isinstance(database, MariadbDatabase)
    long = migration("migrations.RunSQL('DO SLEEP(600)', '')", after=[("demo", "0002_note")])
    project = _at_first(tmp_path, database, long)
    before = mariadb_databases.dump(database)

    with project.start("apply_migrations") as process:
        try:
            while not _runs(database, "DO SLEEP(600)"):
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _stdout, stderr = process.communicate(timeout=_ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise

    assert stderr == "CommandError: ended by SIGTERM; what was done has been undone\n"
    assert diff(before, mariadb_databases.dump(database)) == ""


def test_another_database_is_undone_and_the_default_left_alone_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    default, other = mariadb_databases.new(), mariadb_databases.new()
    project = SmallProject(
        tmp_path / "project",
        {"default": default.django, "other": other.django},
        {**_SOUND, "demo.0003_kind": BROKEN},
    )
    project.succeed("migrate", "demo", "0001", "--database=other", "--verbosity=0")
    before = [mariadb_databases.dump(default), mariadb_databases.dump(other)]

    assert project.run("apply_migrations", "--database=other").returncode == 1

    assert [mariadb_databases.dump(default), mariadb_databases.dump(other)] == before


@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="what joined from another alias is committed with its migration; the reverse code that is to take it back "
    "does nothing there",
)
def test_what_code_wrote_to_the_default_by_mistake_is_undone_with_a_later_failure_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    default, other = mariadb_databases.new(), mariadb_databases.new()
    stray = change(
        "migrations.RunPython(forwards, nothing)",
        functions=run_python("apps.get_model('demo', 'Crate').objects.create(label='stray')"),
    )
    fails = BROKEN.replace("0002_note", "0002_change")
    project = SmallProject(
        tmp_path / "project",
        {"default": default.django, "other": other.django},
        {"demo.0001_start": START, "demo.0002_change": stray, "demo.0003_fails": fails},
    )
    for alias in ("default", "other"):
        project.succeed("migrate", "demo", "0001", f"--database={alias}", "--verbosity=0")
    before = [mariadb_databases.dump(default), mariadb_databases.dump(other)]

    assert project.run("apply_migrations", "--database=other").returncode == 1

    assert [mariadb_databases.dump(default), mariadb_databases.dump(other)] == before


def test_a_success_leaves_what_migrate_leaves(every_database: NewDatabases, tmp_path: Path) -> None:
    outputs, dumps = [], []
    for command in ("migrate", "apply_migrations"):
        database = every_database.new()
        project = SmallProject(
            tmp_path / command,
            {"default": database.django},
            {**_SOUND, "demo.0003_more": NOTE.replace("'note'", "'more'").replace("0001_item", "0002_note")},
            installed=["django.contrib.contenttypes", "django.contrib.auth"],
        )
        outputs.append(project.succeed(command))
        dumps.append(dump(database.dsn, ignore_applied_times=True))

    assert outputs[0] == outputs[1]
    assert diff(*dumps) == ""


def _at_first(directory: Path, database: Database, third: str) -> SmallProject:
    """Return a project whose first migration is applied and whose third is this one."""
    project = SmallProject(directory / "project", {"default": database.django}, {**_SOUND, "demo.0003_kind": third})
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea')")
    return project


def _runs(database: MariadbDatabase, statement: str) -> bool:
    with database.server.connect() as session, session.cursor() as cursor:
        cursor.execute("SELECT 1 FROM information_schema.processlist WHERE info = %s", [statement])
        return bool(cursor.fetchall())
