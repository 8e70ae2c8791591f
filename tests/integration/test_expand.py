"""Operations in halves: what is held back at the deploy, and what finalising makes of it."""

import re
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
    "add field, altered": (
        [
            "migrations.AddField('item', 'size', models.IntegerField(default=7))",
            "migrations.AlterField('item', 'size', models.IntegerField(default=8))",
        ],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, size) VALUES ('new', 'n', 'n', 5, 1, 9)"],
    ),
    "add the day of creation": (
        ["migrations.AddField('item', 'made', models.DateField(auto_now_add=True))"],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, made) VALUES ('n', 'n', 'n', 5, 1, '2020-01-01')"],
    ),
    "add field, of another type": (
        [
            "migrations.AddField('item', 'size', models.IntegerField(default=7))",
            "migrations.AlterField('item', 'size', models.CharField(max_length=9, default='7'))",
        ],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, size) VALUES ('new', 'n', 'n', 5, 1, 'big')"],
    ),
    "add field, renamed": (
        [
            "migrations.AddField('item', 'size', models.IntegerField(default=7))",
            "migrations.RenameField('item', 'size', 'weight')",
        ],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, weight) VALUES ('new', 'n', 'n', 5, 1, 9)"],
    ),
    "add foreign key with a default": (
        ["migrations.AddField('item', 'other', models.ForeignKey('demo.Kind', models.CASCADE, '+', default=1))"],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, other_id) VALUES ('new', 'n', 'n', 5, 1, 2)"],
    ),
    "foreign key not null": (
        [
            "migrations.AddField('item', 'other', models.ForeignKey('demo.Kind', models.CASCADE, '+', null=True))",
            "migrations.AlterField('item', 'other', models.ForeignKey('demo.Kind', models.CASCADE, '+', default=1))",
        ],
        ["INSERT INTO demo_item (name, code, note, price, kind_id, other_id) VALUES ('new', 'n', 'n', 5, 1, 2)"],
    ),
    "foreign key one to one": (
        ["migrations.AlterField('item', 'kind', models.OneToOneField('demo.Kind', models.CASCADE))"],
        ["DELETE FROM demo_item WHERE name = 'old'"],
    ),
    "narrower and nullable": (
        ["migrations.AlterField('item', 'name', models.CharField(max_length=20, null=True))"],
        ["INSERT INTO demo_item (code, note, price, kind_id) VALUES ('n', 'n', 5, 1)"],
    ),
    "constraint removed again": (
        [
            "migrations.RemoveField('item', 'price')",
            "migrations.AddConstraint('item', models.UniqueConstraint(fields=['name'], name='one'))",
            "migrations.RemoveConstraint('item', 'one')",
        ],
        ["INSERT INTO demo_item (name, code, note, kind_id) VALUES ('new', 'n', 'n', 1)"],
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


# Operations after which both releases could not go on.
_REFUSED = {
    "a name that is taken": (
        [
            "migrations.RemoveField('item', 'tags')",
            "migrations.DeleteModel('Item')",
            "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True))])",
        ],
        "Create model Item: its table is still that of a model that has been removed",
    ),
    "an order": (
        ["migrations.AlterOrderWithRespectTo('item', 'kind')"],
        "only one of two releases knows the column _order",
    ),
}
# One of each kind of half; the others, which are put together of these, are left to the long run.
_SHORT = {
    "add field",
    "remove field",
    "remove m2m",
    "not null",
    "unique",
    "constraint",
    "add foreign key with a default",
    "several on one table",
}
_PARAMETERS = [pytest.param(case, marks=() if case in _SHORT else pytest.mark.long) for case in _CASES]
_ROUTER = """\
class NoItems:
    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return False if model_name == "item" else None
"""


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
@pytest.mark.parametrize("case", _PARAMETERS)
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
@pytest.mark.parametrize("case", _PARAMETERS)
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


@pytest.mark.long_on("sqlite")
@pytest.mark.parametrize("case", _REFUSED)
def test_what_would_break_one_of_two_releases_is_refused(databases: NewDatabases, tmp_path: Path, case: str) -> None:
    operations, message = _REFUSED[case]
    database = databases.new()
    project = _project(tmp_path / "project", database, operations)
    before = _content(database)

    refused = project.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert message in refused.stderr
    assert _content(database) == before


def test_the_release_still_running_goes_on_by_a_default_of_the_database(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = _project(
        tmp_path / "project",
        database,
        ["migrations.AlterField('item', 'price', models.IntegerField(db_default=5))"],
    )
    project.succeed("migrate", "--verbosity=0")
    project.write_migration(
        "demo.0003_last",
        migration("migrations.AlterField('item', 'price', models.IntegerField())", after=[("demo", "0002_next")]),
    )

    held = project.succeed("apply_migrations", "--expand")

    assert "demo.0003_last: alter demo_item.price: no default in the database" in held
    _run(database, ["INSERT INTO demo_item (name, code, note, kind_id) VALUES ('old', 'o', 'z', 1)"])
    project.succeed("finalise_migrations")
    assert "DEFAULT 5" not in dump(database.dsn)


def test_rows_of_the_release_before_that_a_unique_field_cannot_take_are_told(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = _project(tmp_path / "project", database, [])
    _run(database, ["DELETE FROM demo_item_tags", "DELETE FROM demo_item"])
    project.write_migration(
        "demo.0002_next",
        migration(
            "migrations.AddField('item', 'size', models.IntegerField(unique=True, default=1))",
            after=[("demo", "0001_first")],
        ),
    )
    project.succeed("apply_migrations", "--expand")
    _run(database, [_OLD[0], _OLD[0]])
    before = _content(database)

    refused = project.run("finalise_migrations")

    assert refused.returncode == 3
    assert "demo_item.size is NULL: 2 rows" in refused.stderr
    assert _content(database) == before


def test_nothing_is_held_back_of_a_table_that_a_router_keeps_away(databases: NewDatabases, tmp_path: Path) -> None:
    project = SmallProject(
        tmp_path,
        {"default": databases.new().django},
        {"demo.0001_first": _FIRST},
        settings='DATABASE_ROUTERS = ["small_router.NoItems"]',
    )
    project.write("small_router.py", _ROUTER)
    project.succeed("migrate", "--verbosity=0")
    operations = [operation for case in ("not null", "constraint", "remove field") for operation in _CASES[case][0]]
    project.write_migration("demo.0002_next", migration(*operations, after=[("demo", "0001_first")]))

    assert "Held back" not in project.succeed("apply_migrations", "--expand")
    assert project.succeed("finalise_migrations") == "  Nothing is held back.\n"


@pytest.mark.parametrize("change", ["squashed", "another", "unapplied"])
def test_nothing_runs_where_nobody_knows_what_is_held_back(
    databases: NewDatabases, tmp_path: Path, change: str
) -> None:
    database = databases.new()
    project = _project(tmp_path / "project", database, _CASES["remove field"][0])
    project.succeed("apply_migrations", "--expand")
    after = ("demo", "0002_next")
    match change:
        case "squashed":
            source = _FIRST.replace(
                "operations =", "replaces = [('demo', '0001_first'), ('demo', '0002_next')]\n    operations ="
            )
            after = ("demo", "0001_squashed")
            project.write_migration("demo.0001_squashed", source)
        case "another":
            other = migration("migrations.RemoveField('item', 'note')", after=[("demo", "0001_first")])
            project.write_migration("demo.0002_next", other)
        case "unapplied":
            project.succeed("migrate", "--fake", "demo", "0001")
    project.write_migration(
        "demo.0003_last", migration("migrations.AlterField('item', 'name', models.TextField())", after=[after])
    )
    before = _content(database)

    for command in (["apply_migrations", "--expand"], ["finalise_migrations"]):
        refused = project.run(*command)
        assert refused.returncode == 3, refused.stderr
        assert "held back" in refused.stderr
    assert _content(database) == before


def test_an_operation_of_a_projects_own_keeps_what_is_held_back(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path / "project", database, _CASES["remove field"][0])
    project.write_migration(
        "demo.0003_last",
        migration(
            "Mine('item', 'name', models.TextField())",
            after=[("demo", "0002_next")],
            functions="class Mine(migrations.AlterField):\n    pass\n",
        ),
    )

    project.succeed("apply_migrations", "--expand")

    _run(database, ["UPDATE demo_item SET price = price + 1 WHERE price > 0"])
    project.succeed("apply_migrations", "demo", "0001")
    _run(database, ["UPDATE demo_item SET price = price - 1 WHERE price IN (2, 3)"])


def test_the_release_before_writes_the_day_on_which_it_writes(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = _project(tmp_path / "project", database, _CASES["add the day of creation"][0])

    project.succeed("apply_migrations", "--expand")

    [line] = [
        line for line in dump(database.dsn).replace(", ", "\n").splitlines() if "made" in line and "DEFAULT" in line
    ]
    assert "DEFAULT '" not in line
    _run(database, [_OLD[0]])
    days = re.findall(r"\b20\d\d-\d\d-\d\d\b", dump(database.dsn, ignore_applied_times=True))
    assert len(days) == 3
