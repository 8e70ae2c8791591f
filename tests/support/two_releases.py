"""A project with rows whose next release is deployed in halves, and what the release before does meanwhile."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.dump import dump
from tests.support.histories import Database, SqliteDatabase, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject, migration

__all__ = [
    "FIRST",
    "OLD",
    "assert_both_work",
    "assert_goes_back",
    "assert_killed_finalise_is_taken_back",
    "assert_refused",
    "content",
    "project_with",
    "run",
    "without_rows",
]

# PostgreSQL 18 names these by what table and column are called when they are made.
_NOT_NULL = re.compile(r" CONSTRAINT \w+_not_null NOT NULL")

FIRST = migration(
    "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True)), "
    "('label', models.CharField(max_length=20))])",
    "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
    "('name', models.CharField(max_length=40)), ('code', models.CharField(max_length=10)), "
    "('note', models.TextField(null=True)), ('price', models.IntegerField()), "
    "('kind', models.ForeignKey('demo.Kind', models.CASCADE))])",
    "migrations.AddField('item', 'tags', models.ManyToManyField('demo.Kind', related_name='tagged'))",
)
_ROWS = [
    "INSERT INTO demo_kind (label) VALUES ('hot'), ('cold')",
    "INSERT INTO demo_item (name, code, note, price, kind_id) VALUES ('tea', 'a', 'x', 1, 1), ('jam', 'b', 'y', 2, 2)",
    "INSERT INTO demo_item_tags (item_id, kind_id) VALUES (1, 1), (2, 2)",
]
# What the release still running does to rows, as its models know them.
OLD = [
    "INSERT INTO demo_item (name, code, note, price, kind_id) VALUES ('old', 'o', 'z', 3, 1)",
    "UPDATE demo_item SET name = 'tea!', code = 'c', note = 'n', price = 4 WHERE id = 1",
]


def project_with(directory: Path, database: Database, operations: list[str]) -> SmallProject:
    """Return a project whose first release is deployed, with rows, and whose next one does this."""
    project = SmallProject(directory, {"default": database.django}, {"demo.0001_first": FIRST})
    project.succeed("migrate", "--verbosity=0")
    run(database, _ROWS)
    project.write_migration("demo.0002_next", migration(*operations, after=[("demo", "0001_first")]))
    return project


def run(database: Database, statements: list[str]) -> None:
    """Run statements, each in a transaction of its own."""
    for statement in statements:
        execute(database, statement)


def content(database: Database) -> object:
    """Return all that is in a database; of SQLite's tables in any order of columns, which every remake changes."""
    if not isinstance(database, SqliteDatabase):
        return _NOT_NULL.sub(" NOT NULL", dump(database.dsn, sequences=False))
    with closing(sqlite3.connect(database.path)) as connection:
        connection.row_factory = sqlite3.Row

        def rows(statement: str) -> list[list[tuple[str, object]]]:
            found = connection.execute(statement)
            return sorted(
                (sorted((key, row[key]) for key in row.keys() if key != "cid") for row in found),  # noqa: SIM118
                key=str,
            )

        names = [str(row["name"]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: [
                rows(f"PRAGMA table_xinfo({name})"),
                rows(f"PRAGMA foreign_key_list({name})"),
                rows(f"SELECT sql FROM sqlite_master WHERE type = 'index' AND tbl_name = '{name}'"),
                rows(f"SELECT * FROM {name}"),
            ]
            for name in names
            if not name.startswith(("smooth_", "sqlite_"))
        }


def without_rows(database: Database) -> object:
    """Return what is in a database but for rows: it deletes them."""
    tables = (
        "demo_mark",
        "demo_label_kinds",
        "demo_label",
        "demo_item_more",
        "demo_item_tags",
        "demo_thing_tags",
        "things_tags",
        "demo_item",
        "demo_thing",
        "things",
        "demo_kind",
        "demo_sort",
    )
    present = dump(database.dsn)
    run(database, [f"DELETE FROM {table}" for table in tables if f"{table} " in present or f'{table}"' in present])
    run(database, ["DELETE FROM django_migrations"])
    return content(database)


def assert_both_work(databases: NewDatabases, directory: Path, operations: list[str], new: list[str]) -> None:
    """Deploy a release in halves, with writes of both between them, and end where stock `migrate` does."""
    stock, ours = databases.new(), databases.new()
    project_with(directory / "stock", stock, operations).succeed("migrate", "--verbosity=0")
    project = project_with(directory / "ours", ours, operations)

    held = project.succeed("apply_migrations", "--expand")

    assert "Held back for finalise_migrations:" in held
    run(ours, [*OLD, *new, *OLD[1:]])
    project.succeed("migrate", "--check")
    listed = project.succeed("show_migration_changes").splitlines()
    pending = listed[listed.index("Contract operations pending in default:") + 1 :]
    assert pending == held.splitlines()[-len(pending) :]
    done = project.succeed("finalise_migrations")
    assert done.splitlines()[1:] == held[held.index("Held back") :].splitlines()[1:]
    assert without_rows(ours) == without_rows(stock)
    assert project.succeed("finalise_migrations") == "  Nothing is held back.\n"


def assert_goes_back(databases: NewDatabases, directory: Path, operations: list[str]) -> None:
    """Deploy the expand half of a release, and go back to all that was there before."""
    database = databases.new()
    project = project_with(directory / "project", database, operations)
    before = content(database)
    project.succeed("apply_migrations", "--expand")

    project.succeed("apply_migrations", "demo", "0001")

    assert content(database) == before
    assert project.succeed("finalise_migrations") == "  Nothing is held back.\n"


def assert_refused(databases: NewDatabases, directory: Path, operations: list[str], message: str) -> None:
    """Refuse a release, and change nothing."""
    database = databases.new()
    project = project_with(directory / "project", database, operations)
    before = content(database)

    refused = project.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert message in refused.stderr
    assert content(database) == before


def assert_killed_finalise_is_taken_back(
    project: SmallProject, database: Database, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Kill the contract half of demo.0002 at a failpoint: the next call of any command leaves nothing of it."""
    before = content(database)
    monkeypatch.setenv("SMOOTH_FAILPOINT", point)
    assert project.run("finalise_migrations").returncode == -9
    monkeypatch.delenv("SMOOTH_FAILPOINT")

    taken = project.run("apply_migrations", "demo", "0002")

    assert taken.returncode == 0, taken.stderr
    assert content(database) == before
