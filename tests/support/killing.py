"""A process that kills itself at a chosen statement, so that every moment of a call can be visited in turn."""

from collections.abc import Iterator
from pathlib import Path

from tests.support.dump import diff
from tests.support.histories import Database, execute
from tests.support.mariadb_database import MariadbDatabase
from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject

__all__ = ["assert_undone_after_each_kill", "killed_at_each_statement", "make_room"]

# Django imports this when the command begins. The file says at which statement; it is gone when that has come.
_MANAGEMENT = """\
import os
import signal
from pathlib import Path

from django.db.backends.signals import connection_created

_COUNT = Path("kill_at")
_left = int(_COUNT.read_text()) if _COUNT.exists() else 0

def _countdown(execute, sql, params, many, context):
    global _left
    result = execute(sql, params, many, context)
    # What only reads leaves the same as the statement before it.
    _left -= not sql.lstrip().upper().startswith(("SELECT", "SHOW"))
    if _left == 0 and _COUNT.exists():
        _COUNT.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return result

def _watch(connection, **kwargs):
    if _left and _countdown not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, _countdown)

connection_created.connect(_watch)
"""


def killed_at_each_statement(project: SmallProject, directory: Path, *arguments: str, every: int = 1) -> Iterator[int]:
    """Run `apply_migrations` again and again, killed after the first statement that writes, a later one, and so on.

    Whoever iterates has the database as it was before the next one. Ends when a call comes to its end.

    Args:
        project: has the app `demo`.
        directory: the project's.
        arguments: further ones.
        every: how many statements lie between two that are visited.

    Yields:
        The number of the statement after which the call was killed.
    """
    project.write("demo/apps.py", _APPS)
    project.write("demo/killing.py", _MANAGEMENT)
    number = 1
    while True:
        (directory / "kill_at").write_text(str(number))
        project.run("apply_migrations", *arguments)
        if (directory / "kill_at").exists():
            (directory / "kill_at").unlink()
            return
        yield number
        number += every


def assert_undone_after_each_kill(
    databases: NewDatabases, database: Database, project: SmallProject, directory: Path, *, every: int, altered: str
) -> None:
    """Kill a call at one statement after another: the next call takes back what it left, runs, and fails itself.

    Args:
        databases: where the database is from.
        database: the project's.
        project: its release ends with a migration that raises `ValueError: no`.
        directory: the project's.
        every: how many statements lie between two that are visited.
        altered: a table which has columns in between that it had not.
    """
    before = databases.dump(database)
    for number in killed_at_each_statement(project, directory, every=every):
        result = project.run("apply_migrations")
        assert result.returncode == 1, f"statement {number}: {result.stdout}{result.stderr}"
        assert "ValueError: no" in result.stderr
        assert diff(before, databases.dump(database)) == "", f"statement {number}: {result.stdout}"
        make_room(database, altered)


def make_room(database: Database, table: str) -> None:
    """Have MariaDB write a table anew.

    What was dropped at once takes room in each row until then (MariaDB's documentation, "InnoDB Online DDL Operations
    with the INSTANT Alter Algorithm").
    """
    if isinstance(database, MariadbDatabase):
        execute(database, f"ALTER TABLE {table} FORCE")


_APPS = """\
from django.apps import AppConfig

class Config(AppConfig):
    name = "demo"

    def ready(self):
        from demo import killing
"""
