"""Operations in halves: what is held back at the deploy, and what finalising makes of it."""

import re
from pathlib import Path

import pytest

from tests.support.django_connections import ask
from tests.support.dump import dump
from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import (
    FIRST,
    OLD,
    assert_both_work,
    assert_goes_back,
    assert_refused,
    content,
    project_with,
    run,
)

_KEY = "models.ForeignKey('demo.Kind', models.CASCADE, db_column='kind_id')"
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
    "renamed, but not in the database": (
        [
            "migrations.AlterField('item', 'price', models.IntegerField(db_column='price'))",
            "migrations.RenameField('item', 'price', 'cost')",
            f"migrations.AlterField('item', 'kind', {_KEY})",
            "migrations.RenameField('item', 'kind', 'sort')",
            "migrations.RemoveField('item', 'code')",
        ],
        ["INSERT INTO demo_item (name, note, price, kind_id) VALUES ('new', 'n', 5, 1)"],
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
        "Create model Item: its name is still that of a model that has been removed",
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
    "renamed, but not in the database",
    "several on one table",
}
_PARAMETERS = [pytest.param(case, marks=() if case in _SHORT else pytest.mark.long) for case in _CASES]
_ROUTER = """\
class NoItems:
    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return False if model_name == "item" else None
"""


@pytest.mark.long_on("sqlite")
@pytest.mark.parametrize("case", _PARAMETERS)
def test_both_releases_work_between_the_halves(databases: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_both_work(databases, tmp_path, *_CASES[case])


@pytest.mark.long_on("postgresql")
@pytest.mark.parametrize("case", _PARAMETERS)
def test_going_back_before_the_contract_gives_the_old_schema_back(
    databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    assert_goes_back(databases, tmp_path, _CASES[case][0])


@pytest.mark.long_on("sqlite")
@pytest.mark.parametrize("case", _REFUSED)
def test_what_would_break_one_of_two_releases_is_refused(databases: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_refused(databases, tmp_path, *_REFUSED[case])


def test_the_release_still_running_goes_on_by_a_default_of_the_database(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = project_with(
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
    run(database, ["INSERT INTO demo_item (name, code, note, kind_id) VALUES ('old', 'o', 'z', 1)"])
    project.succeed("finalise_migrations")
    assert "DEFAULT 5" not in dump(database.dsn)


def test_rows_of_the_release_before_that_a_unique_field_cannot_take_are_told(
    databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    project = project_with(tmp_path / "project", database, [])
    run(database, ["DELETE FROM demo_item_tags", "DELETE FROM demo_item"])
    project.write_migration(
        "demo.0002_next",
        migration(
            "migrations.AddField('item', 'size', models.IntegerField(unique=True, default=1))",
            after=[("demo", "0001_first")],
        ),
    )
    project.succeed("apply_migrations", "--expand")
    run(database, [OLD[0], OLD[0]])
    before = content(database)

    refused = project.run("finalise_migrations")

    assert refused.returncode == 3
    assert "demo_item.size is NULL: 2 rows" in refused.stderr
    assert content(database) == before


def test_numbers_that_a_narrower_field_cannot_take_are_told(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    field = "models.DecimalField(max_digits={}, decimal_places={})"
    key = "('id', models.BigAutoField(primary_key=True))"
    first = migration(f"migrations.CreateModel('Sum', [{key}, ('paid', {field.format(10, 4)})])")
    narrow = migration(f"migrations.AlterField('sum', 'paid', {field.format(6, 2)})", after=[("demo", "0001_first")])
    project = SmallProject(tmp_path, {"default": pg_database.django}, {"demo.0001_first": first})
    project.succeed("migrate", "--verbosity=0")
    run(pg_database, ["INSERT INTO demo_sum (paid) VALUES (9999.99), (-123456.7891), (1.2345)"])
    project.write_migration("demo.0002_narrow", narrow)
    project.succeed("apply_migrations", "--expand")

    refused = project.run("finalise_migrations")

    assert refused.returncode == 3
    assert "demo_sum.paid is out of range: 1 row (such as 2)" in refused.stderr
    run(pg_database, ["DELETE FROM demo_sum WHERE id = 2"])
    project.succeed("finalise_migrations")
    paid = [str(value) for (value,) in ask(pg_database, "SELECT paid FROM demo_sum ORDER BY id")]
    assert paid == ["9999.99", "1.23"]


def test_what_the_database_itself_refuses_is_told_in_its_words(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_with(tmp_path / "project", database, [*_CASES["not null"][0], *_CASES["narrower"][0]])
    project.succeed("apply_migrations", "--expand")
    run(database, ["CREATE VIEW names AS SELECT name FROM demo_item"])
    before = content(database)

    failed = project.run("finalise_migrations")

    assert failed.returncode == 1
    reasons = {
        Vendor.POSTGRESQL: "cannot alter type of a column used by a view",
        Vendor.SQLITE: "error in view names: no such table: main.demo_item",
    }
    assert reasons[databases.vendor] in failed.stderr
    assert failed.stderr.endswith("What was done has been undone.\n")
    assert "Traceback" not in failed.stderr
    assert content(database) == before


def test_nothing_is_held_back_of_a_table_that_a_router_keeps_away(databases: NewDatabases, tmp_path: Path) -> None:
    project = SmallProject(
        tmp_path,
        {"default": databases.new().django},
        {"demo.0001_first": FIRST},
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
    project = project_with(tmp_path / "project", database, _CASES["remove field"][0])
    project.succeed("apply_migrations", "--expand")
    after = ("demo", "0002_next")
    match change:
        case "squashed":
            source = FIRST.replace(
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
    before = content(database)

    for command in (["apply_migrations", "--expand"], ["finalise_migrations"]):
        refused = project.run(*command)
        assert refused.returncode == 3, refused.stderr
        assert "held back" in refused.stderr
    assert content(database) == before


def test_an_operation_of_a_projects_own_keeps_what_is_held_back(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_with(tmp_path / "project", database, _CASES["remove field"][0])
    project.write_migration(
        "demo.0003_last",
        migration(
            "Mine('item', 'name', models.TextField())",
            after=[("demo", "0002_next")],
            functions="class Mine(migrations.AlterField):\n    pass\n",
        ),
    )

    project.succeed("apply_migrations", "--expand")

    run(database, ["UPDATE demo_item SET price = price + 1 WHERE price > 0"])
    project.succeed("apply_migrations", "demo", "0001")
    run(database, ["UPDATE demo_item SET price = price - 1 WHERE price IN (2, 3)"])


def test_the_release_before_writes_the_day_on_which_it_writes(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    project = project_with(tmp_path / "project", database, _CASES["add the day of creation"][0])

    project.succeed("apply_migrations", "--expand")

    [line] = [
        line for line in dump(database.dsn).replace(", ", "\n").splitlines() if "made" in line and "DEFAULT" in line
    ]
    assert "DEFAULT '" not in line
    run(database, [OLD[0]])
    days = re.findall(r"\b20\d\d-\d\d-\d\d\b", dump(database.dsn, ignore_applied_times=True))
    assert len(days) == 3


_MADE = [
    "migrations.AddField('item', 'told', Told(null=True))",
    "migrations.RemoveField('item', 'price')",
    "migrations.AddField('item', 'size', models.IntegerField(default=7))",
]
# A field that writes down, whenever a model is made of a state, how many locks are held.
_TOLD = """
from django.db import connection, models

_HELD = "SELECT count(*) FROM pg_locks WHERE relation = to_regclass('demo_item') AND mode = 'AccessExclusiveLock'"

class Told(models.IntegerField):
    def contribute_to_class(self, *args, **kwargs):
        super().contribute_to_class(*args, **kwargs)
        if connection.in_atomic_block:
            with connection.cursor() as cursor, open("locks.txt", "a") as file:
                cursor.execute(_HELD)
                file.write(f"{cursor.fetchone()[0]}\\n")
"""


def test_no_model_is_made_while_a_finalise_holds_its_locks(pg_databases: NewDatabases, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_databases.new(), _MADE)
    project.write("demo/told.py", _TOLD)
    project.write_migration(
        "demo.0002_next",
        migration(*_MADE, after=[("demo", "0001_first")], functions="from demo.told import Told\n"),
    )
    project.succeed("apply_migrations", "--expand")
    (tmp_path / "locks.txt").unlink()

    project.succeed("finalise_migrations")

    # Each takes long where a project has many of them.
    assert set((tmp_path / "locks.txt").read_text().splitlines()) == {"0"}
