"""A call that fails changes nothing, also where every DDL statement is a commit."""

import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.failing_move import FailingMove
from tests.support.failing_moves import MOVES, START, change
from tests.support.histories import Database, execute
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import ITEM, NOTE, run_python
from tests.support.small_project import SmallProject, migration

_SOUND = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
_ENDS_WITHIN_S = 10


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


@pytest.mark.parametrize("move", [pytest.param(move, id=move.name) for move in MOVES if move.stays])
def test_rows_that_code_changed_and_nothing_gives_back_stay_and_it_is_told_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path, move: FailingMove
) -> None:
    database = mariadb_databases.new()
    project = move.project(tmp_path, database)
    before = mariadb_databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 1
    assert f"\n  demo.0002_change: {move.stays}\n" in result.stdout
    changed = before.replace("'tea'", "'changed'").replace("'jam'", "'changed'")
    assert changed != before
    assert diff(changed, mariadb_databases.dump(database)) == ""


def test_a_second_alias_of_the_same_database_keeps_no_migration_waiting_in_mariadb(
    mariadb_databases: NewDatabases, tmp_path: Path
) -> None:
    database = mariadb_databases.new()
    writes = change(
        "migrations.RunPython(forwards, nothing)",
        functions=run_python("apps.get_model('demo', 'Crate').objects.using('again').create(label='box')"),
    )
    more = migration(
        "migrations.AddField('crate', 'size', models.IntegerField(default=1))", after=[("demo", "0002_change")]
    )
    project = SmallProject(
        tmp_path / "project",
        {"default": database.django, "again": database.django},
        {"demo.0001_start": START, "demo.0002_change": writes, "demo.0003_more": more},
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")

    project.succeed("apply_migrations", "--lock-timeout=5s")

    assert "'box'" in mariadb_databases.dump(database)


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
