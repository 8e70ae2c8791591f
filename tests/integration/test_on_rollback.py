"""Undo that a migration registers for what it does outside the database."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.next_release import project_of
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_migrations import BROKEN, DEFINES
from tests.support.small_project import migration

# What is undone is a line of a file; it says as well whether the database had been undone before it.
pytestmark = pytest.mark.long_on("sqlite")

_FUNCTIONS = """\
from pathlib import Path
from django.db import connection
from smooth_migrations import on_rollback

def undo_of(word):
    def undo():
        names = connection.introspection.table_names()
        with Path("undone").open("a") as file:
            file.write(f"{word} {'demo_' + word in names}\\n")
    return undo

def nothing(apps, editor):
    pass

def fail(apps, editor):
    raise OSError("stuck")
"""


def remembering(word: str, *, after: str, body: str = "", back: str = "nothing", atomic: bool = True) -> str:
    """Return a migration that makes the table `demo_{word}` and then registers two undos of its own."""
    forwards = (
        f"def forwards(apps, editor):\n    on_rollback(undo_of('{word}'))\n"
        f"    on_rollback(undo_of('{word}s'))\n    {body or 'pass'}\n"
    )
    return migration(
        f"migrations.CreateModel('{word.capitalize()}', [('id', models.BigAutoField(primary_key=True))])",
        f"migrations.RunPython(forwards, {back})",
        after=[("demo", after)],
        atomic=atomic,
        functions=_FUNCTIONS + forwards,
    )


def undone(directory: Path) -> list[str]:
    file = directory / "project/undone"
    return file.read_text().splitlines() if file.exists() else []


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_what_was_registered_is_called_newest_first_after_the_database_was_undone(
    every_database: NewDatabases, tmp_path: Path, *, atomic: bool
) -> None:
    database = every_database.new()
    project = project_of(
        tmp_path,
        database,
        {
            "demo.0002_note": remembering("cup", after="0001_item", atomic=atomic),
            "demo.0003_kind": remembering("pot", after="0002_note", body="raise ValueError('no')", atomic=atomic),
        },
    )
    before = every_database.dump(database)

    assert project.run("apply_migrations").returncode == 1

    assert undone(tmp_path) == ["pots False", "pot False", "cups False", "cup False"]
    assert every_database.dump(database) == before


def test_nothing_is_called_when_the_call_succeeds(every_database: NewDatabases, tmp_path: Path) -> None:
    project = project_of(tmp_path, every_database.new(), {"demo.0002_note": remembering("cup", after="0001_item")})

    project.succeed("apply_migrations")

    assert undone(tmp_path) == []


def test_a_rehearsal_calls_it_too(databases: NewDatabases, tmp_path: Path) -> None:
    project = project_of(tmp_path, databases.new(), {"demo.0002_note": remembering("cup", after="0001_item")})

    project.succeed("apply_migrations", "--rehearse")

    assert undone(tmp_path) == ["cups False", "cup False"]


def test_an_error_keeps_no_other_from_being_called_and_joins_the_cause(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    bad = "on_rollback(lambda: 1 / 0); on_rollback(lambda: exit('gone')); raise ValueError('no')"
    project = project_of(tmp_path, database, {"demo.0002_note": remembering("cup", after="0001_item", body=bad)})
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert result.returncode == 4
    assert undone(tmp_path) == ["cups False", "cup False"]
    for told in ("ValueError: no", "SystemExit: gone", "ZeroDivisionError: division by zero"):
        assert f"| {told}\n" in result.stderr
    assert "raised by what demo.0002_note had registered with on_rollback" in result.stderr
    assert databases.dump(database) == before


def test_what_is_tried_again_is_undone_before_and_registers_again(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    waits = "from django.db import connection as c; c.cursor().execute('ALTER TABLE demo_item ADD COLUMN size integer')"
    project = project_of(tmp_path, pg_database, {"demo.0002_note": remembering("cup", after="0001_item", body=waits)})
    with pg_database.connect() as holder, holder.transaction():
        holder.execute("SELECT * FROM demo_item")
        assert project.run("apply_migrations", "--lock-timeout=100ms", "--lock-retries=1").returncode == 1
    assert undone(tmp_path) == ["cups False", "cup False"] * 2


def test_what_stays_in_the_database_is_not_undone_outside_it(stepping_databases: NewDatabases, tmp_path: Path) -> None:
    database = stepping_databases.new()
    stuck = remembering("cup", after="0001_item", body=DEFINES, atomic=False, back="fail")
    project = project_of(tmp_path, database, {"demo.0002_note": stuck, "demo.0003_kind": BROKEN})

    assert project.run("apply_migrations").returncode == 4

    assert undone(tmp_path) == []
    assert "demo_cup" in stepping_databases.dump(database)


def test_stock_migrate_calls_nothing(databases: NewDatabases, tmp_path: Path) -> None:
    broken = remembering("cup", after="0001_item", body="raise ValueError('no')")
    project = project_of(tmp_path, databases.new(), {"demo.0002_note": broken})

    assert project.run("migrate").returncode == 1
    assert project.run("apply_migrations", "--no-rollback").returncode == 1

    assert undone(tmp_path) == []


def test_the_module_is_imported_without_django() -> None:
    code = (
        "import sys, smooth_migrations; smooth_migrations.on_rollback(print); "
        "assert not [name for name in sys.modules if name.startswith('django')]"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_thread_that_a_migration_starts_is_in_no_call(databases: NewDatabases, tmp_path: Path) -> None:
    in_thread = (
        "t = threading.Thread(target=on_rollback, args=(undo_of('thread'),)); t.start(); t.join(); "
        "raise ValueError('no')"
    )
    project = project_of(
        tmp_path, databases.new(), {"demo.0002_note": remembering("cup", after="0001_item", body=in_thread)}
    )

    assert project.run("apply_migrations").returncode == 1

    assert undone(tmp_path) == ["cups False", "cup False"]
