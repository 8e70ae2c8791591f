"""A call that fails changes nothing, also where every DDL statement is a commit."""

import signal
import subprocess
from pathlib import Path

from tests.support.dump import diff, dump
from tests.support.histories import Database, execute
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.small_migrations import ITEM, NOTE
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
