"""A project of which one migration runs code of every kind outside a transaction, and the next one fails."""

from collections.abc import Mapping
from pathlib import Path

from tests.support.dump import diff
from tests.support.failing_moves import START
from tests.support.histories import Database, SqliteDatabase, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject, migration

__all__ = ["ALL", "REVERSED", "assert_reversed", "assert_undone", "operation", "project_of", "ran", "values"]

REVERSED = "its code was taken back by its reverse code; what that does not give back has changed"
"""Told where it is not known which rows code has changed."""

_FUNCTIONS = """\
import io

def run(*statements):
    def forwards(apps, editor):
        with editor.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
    return forwards

def meanwhile(*statements):
    def forwards(apps, editor):
        other = editor.connection.copy()
        with other.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        other.close()
    return forwards

def both(*codes):
    return lambda apps, editor: [code(apps, editor) for code in codes]

def fail(apps, editor):
    raise ValueError("no")

def many(statement, *params):
    def forwards(apps, editor):
        with editor.connection.cursor() as cursor:
            cursor.executemany(statement, params)
    return forwards

def copied(apps, editor):
    statement = "COPY demo_crate (id, label) FROM STDIN"
    with editor.connection.cursor() as cursor:
        if editor.connection.Database.__name__ == "psycopg2":
            cursor.copy_expert(statement, io.StringIO("900\\tcopied\\n"))
        else:
            with cursor.copy(statement) as copy:
                copy.write_row((900, "copied"))

def called(apps, editor):
    with editor.connection.cursor() as cursor:
        cursor.callproc("hear")

class Fill(migrations.operations.base.Operation):
    reversible = True

    def __init__(self, forwards, backwards):
        self.forwards, self.backwards = forwards, backwards

    def state_forwards(self, app_label, state):
        pass

    def database_forwards(self, app_label, editor, before, after):
        self.forwards(None, editor)

    def database_backwards(self, app_label, editor, before, after):
        self.backwards(None, editor)

{functions}
"""
_ROWS = """
    INSERT INTO demo_crate (id, label) VALUES (1, 'box'), (2, 'bag');
    INSERT INTO demo_item (id, name, code, size, crate_id)
        VALUES (1, 'tea', '01', NULL, 1), (2, 'jam', '02', 7, NULL), (3, 'jam', '03', NULL, 2);
    INSERT INTO demo_label (id, text, crate_id) VALUES (1, 'red', 1);
"""
ALL = "UPDATE demo_item SET name = 'changed'"
"""A statement that changes every item."""


def ran(*statements: str) -> str:
    """Return the source of code that runs these."""
    return f"run({', '.join(map(repr, statements))})"


def operation(code: str) -> str:
    """Return the source of an operation of which the way back fails, should it be gone."""
    return f"migrations.RunPython({code}, fail)"


def project_of(
    directory: Path,
    database: Database,
    *operations: str,
    atomic: bool = False,
    rows: str = "",
    last: str = "fail",
    functions: str = "",
    options: Mapping[str, str] | None = None,
) -> SmallProject:
    """Bring a database to demo.0001_start, with rows; what comes next runs these operations, and then this code.

    Args:
        directory: in which the project comes to be.
        database: an empty one.
        operations: the source of each, of demo.0002_change.
        atomic: its attribute of that name.
        rows: SQL for further rows.
        last: the source of the code of demo.0003_fails.
        functions: source of functions that these are made of.
        options: the database's `OPTIONS`.
    """
    functions = _FUNCTIONS.replace("{functions}", functions)
    project = SmallProject(
        directory / "project",
        {"default": database.django | ({"OPTIONS": options} if options else {})},
        {"demo.0001_start": START},
    )
    project.succeed("migrate", "--verbosity=0")
    execute(database, _ROWS + rows)
    change = migration(*operations, after=[("demo", "0001_start")], atomic=atomic, functions=functions)
    project.write_migration("demo.0002_change", change)
    fails = migration(f"migrations.RunPython({last}, fail)", after=[("demo", "0002_change")], functions=functions)
    project.write_migration("demo.0003_fails", fails)
    return project


def assert_undone(
    databases: NewDatabases, directory: Path, *operations: str, atomic: bool, rows: str = "", functions: str = ""
) -> None:
    """Run these, and let a later migration fail: nothing has changed, and nothing is told to have."""
    database = databases.new()
    project = project_of(directory, database, *operations, atomic=atomic, rows=rows, functions=functions)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert (result.returncode, "demo.0002_change: " in result.stdout) == (1, False), result.stdout + result.stderr
    assert "  Unapplying demo.0002_change... OK\n" in result.stdout, result.stdout + result.stderr
    assert diff(before, databases.dump(database)) == ""


def assert_reversed(
    databases: NewDatabases, directory: Path, code: str, back: str, *, inner: bool, rows: str = "", functions: str = ""
) -> None:
    """Run code of which nobody can say what it changes, and let a later migration fail.

    Its reverse code has run, and given everything back; that it is no more certain than this is told.

    Args:
        databases: where.
        directory: of the project.
        code: the source of code.
        back: the source of its reverse code.
        inner: whether both run in a transaction.
        rows: SQL for what is there before.
        functions: source of functions that these are made of.
    """
    database = databases.new()
    operation = f"migrations.RunPython({code}, {back}, atomic={inner})"
    project = project_of(directory, database, operation, rows=rows, functions=functions)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert (result.returncode, f"  demo.0002_change: {REVERSED}\n" in result.stdout) == (1, True), (
        result.stdout + result.stderr
    )
    assert "ValueError: no" in result.stderr
    assert diff(before, databases.dump(database)) == ""


def values(database: Database, statement: str) -> list[tuple[object, ...]]:
    """Return what a query finds, through a session of the test's own."""
    assert not isinstance(database, SqliteDatabase)
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
