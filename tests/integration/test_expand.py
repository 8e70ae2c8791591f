"""Operations in halves: what is held back at the deploy, and what finalising makes of it."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.dump import dump
from tests.support.histories import Database, SqliteDatabase, execute
from tests.support.new_databases import NewDatabases
from tests.support.small_project import SmallProject, migration

_FIRST = migration(
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
_OLD = [
    "INSERT INTO demo_item (name, code, note, price, kind_id) VALUES ('old', 'o', 'z', 3, 1)",
    "UPDATE demo_item SET name = 'tea!', code = 'c', note = 'n', price = 4 WHERE id = 1",
]
_CASES = {
    "add field": (
        ["migrations.AddField('item', 'size', models.IntegerField(default=7))"],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, size) VALUES ('new', 'n', 'n', 5, 1, 9)"],
    ),
    "remove field": (
        ["migrations.RemoveField('item', 'price')"],
        ["INSERT INTO demo_item (name, code, note, kind_id) VALUES ('new', 'n', 'n', 1)"],
    ),
    "remove foreign key": (
        ["migrations.RemoveField('item', 'kind')"],
        ["INSERT INTO demo_item (name, code, note, price) VALUES ('new', 'n', 'n', 1)"],
    ),
    "remove m2m": (["migrations.RemoveField('item', 'tags')"], ["DELETE FROM demo_kind WHERE label = 'none'"]),
    "not null": (
        ["migrations.AlterField('item', 'note', models.TextField(default='?'))"],
        ["INSERT INTO demo_item (name, code, note, price, kind_id) VALUES ('new', 'n', 'n', 5, 1)"],
    ),
    "unique": (["migrations.AlterField('item', 'code', models.CharField(max_length=10, unique=True))"], []),
    "narrower": (["migrations.AlterField('item', 'name', models.CharField(max_length=20))"], []),
    "wider": (["migrations.AlterField('item', 'price', models.BigIntegerField())"], []),
    "unique together": (["migrations.AlterUniqueTogether('item', {('name', 'code')})"], []),
    "constraint": (
        [
            "migrations.AddConstraint('item', models.UniqueConstraint(fields=['name', 'code'], name='one'))",
            "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(price__gt=0), name='paid'))",
        ],
        [],
    ),
    "delete model": (
        ["migrations.RemoveField('item', 'tags')", "migrations.DeleteModel('Item')"],
        ["DELETE FROM demo_kind WHERE label = 'none'"],
    ),
    "several on one table": (
        [
            "migrations.RemoveField('item', 'price')",
            "migrations.AddField('item', 'size', models.IntegerField(default=7))",
            "migrations.AlterField('item', 'note', models.TextField(default='?'))",
            "migrations.AlterField('item', 'note', models.TextField(default='?', help_text='more'))",
            "migrations.AddField('item', 'extra', models.IntegerField(null=True))",
            "migrations.RemoveField('item', 'code')",
        ],
        ["INSERT INTO demo_item (name, note, kind_id, size, extra) VALUES ('new', 'n', 1, 9, 9)"],
    ),
}


def _project(directory: Path, database: Database, operations: list[str]) -> SmallProject:
    project = SmallProject(directory, {"default": database.django}, {"demo.0001_first": _FIRST})
    project.succeed("migrate", "--verbosity=0")
    _run(database, _ROWS)
    project.write_migration("demo.0002_next", migration(*operations, after=[("demo", "0001_first")]))
    return project


def _run(database: Database, statements: list[str]) -> None:
    for statement in statements:
        execute(database, statement)


def _content(database: Database) -> object:
    """Return all that is in a database; of SQLite's tables in any order of columns, which every remake changes."""
    if not isinstance(database, SqliteDatabase):
        return dump(database.dsn, sequences=False)
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


def _without_rows(database: Database) -> object:
    tables = ("demo_item_tags", "demo_item", "demo_kind")
    present = dump(database.dsn)
    _run(database, [f"DELETE FROM {table}" for table in tables if f"{table} " in present or f'{table}"' in present])
    _run(database, ["DELETE FROM django_migrations"])
    return _content(database)


@pytest.mark.long_on("sqlite")
@pytest.mark.parametrize("case", _CASES)
def test_both_releases_work_between_the_halves(databases: NewDatabases, tmp_path: Path, case: str) -> None:
    operations, new = _CASES[case]
    stock, ours = databases.new(), databases.new()
    _project(tmp_path / "stock", stock, operations).succeed("migrate", "--verbosity=0")
    project = _project(tmp_path / "ours", ours, operations)

    held = project.succeed("apply_migrations", "--expand")

    assert "Held back for finalise_migrations:" in held
    _run(ours, [*_OLD, *new, *_OLD[1:]])
    project.succeed("migrate", "--check")
    listed = project.succeed("show_migration_changes").splitlines()
    assert (
        listed[listed.index("Contract operations pending in default:") + 1 :] == held.splitlines()[-len(listed) + 1 :]
    )
    done = project.succeed("finalise_migrations")
    assert done.splitlines()[1:] == held[held.index("Held back") :].splitlines()[1:]
    assert _without_rows(ours) == _without_rows(stock)
    assert project.succeed("finalise_migrations") == "  Nothing is held back.\n"


@pytest.mark.long_on("postgresql")
@pytest.mark.parametrize("case", _CASES)
def test_going_back_before_the_contract_gives_the_old_schema_back(
    databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    operations, _ = _CASES[case]
    database = databases.new()
    project = _project(tmp_path / "project", database, operations)
    before = _content(database)
    project.succeed("apply_migrations", "--expand")

    project.succeed("apply_migrations", "demo", "0001")

    assert _content(database) == before
    assert project.succeed("finalise_migrations") == "  Nothing is held back.\n"
