"""Columns that get another name, where both releases could not use them: refused by name, and nothing is changed."""

from pathlib import Path

import pytest

from tests.support.dump import dump
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import assert_refused, project_with, run

_PRICE = ["migrations.RenameField('item', 'price', 'cost')"]
_TWICE = "models.GeneratedField(expression=models.F('price') * 2, output_field=models.IntegerField(), db_persist=True)"
_MANY = "SELECT 'many', 'm', number, 1 FROM generate_series(1, 100000) AS number"
_REFUSED = {
    "a primary key": (["migrations.RenameField('item', 'id', 'number')"], "to number: it is of the primary key"),
    "a relation to many": (
        ["migrations.RenameField('item', 'tags', 'labels')"],
        "Rename field tags on item to labels: its table gets another name",
    ),
    "a default of the database beside NULL": (
        [
            "migrations.AlterField('item', 'note', models.TextField(null=True, db_default='?'))",
            "migrations.RenameField('item', 'note', 'remark')",
        ],
        "Rename field note on item to remark: NULL could not be told from its default in the database",
    ),
    "a generated column beside it": (
        [
            f"migrations.AddField('item', 'twice', {_TWICE})",
            *_PRICE,
        ],
        "Rename field price on item to cost: a column of its table is generated",
    ),
    "another change behind it": (
        [*_PRICE, "migrations.AlterField('item', 'cost', models.BigIntegerField())"],
        "Alter field cost on item: demo_item.price is kept equal to cost",
    ),
    "another change before it": (
        [
            "migrations.AlterField('item', 'note', models.TextField(default=''))",
            "migrations.RenameField('item', 'note', 'remark')",
        ],
        "Rename field note on item to remark: held back is alter demo_item.note: NOT NULL",
    ),
    "a second name": (
        [*_PRICE, "migrations.RenameField('item', 'cost', 'worth')"],
        "Rename field cost on item to worth: demo_item.price is kept equal to cost",
    ),
    "the old name for another field": (
        [*_PRICE, "migrations.RenameField('item', 'code', 'price')"],
        "Rename field code on item to price: demo_item.price is kept equal to cost",
    ),
    "the old name for a new column": (
        [*_PRICE, "migrations.AddField('item', 'size', models.IntegerField(null=True, db_column='price'))"],
        "Add field size to item: demo_item.price is kept equal to cost",
    ),
    "a new name for its table": (
        [*_PRICE, "migrations.AlterModelTable('item', 'things')"],
        "Rename table for item to things: demo_item.price is kept equal to cost",
    ),
    "a constraint that is held back": (
        ["migrations.AlterUniqueTogether('item', {('name', 'price')})", *_PRICE],
        "Rename field price on item to cost: held back is make name, price unique in demo_item",
    ),
    "a column whose type it follows": (
        [
            "migrations.RenameField('item', 'kind', 'sort')",
            "migrations.AlterField('kind', 'id', models.IntegerField(primary_key=True))",
        ],
        "Alter field id on kind: demo_item.kind_id is kept equal to sort_id",
    ),
    "a part of something else": (
        [f"migrations.SeparateDatabaseAndState([{_PRICE[0]}], [{_PRICE[0]}])"],
        "within SeparateDatabaseAndState, would break the running release",
    ),
}
_HINDERED = {
    "triggers": (
        [
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER own BEFORE UPDATE ON demo_item FOR EACH ROW EXECUTE FUNCTION nothing()",
        ],
        "demo_item has triggers of its own, which would not see what is written by the other name: own",
    ),
    "rules": (
        ["CREATE RULE kept AS ON DELETE TO demo_item DO INSTEAD NOTHING"],
        "demo_item has rules, which rewrite what is written to it",
    ),
    "policies": (
        ["ALTER TABLE demo_item ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"],
        "policies of demo_item may hide rows from whoever fills it",
    ),
    "parts": (["CREATE TABLE more () INHERITS (demo_item)"], "demo_item is partitioned, or a part of another table"),
    "a default": (
        ["ALTER TABLE demo_item ALTER price DROP NOT NULL, ALTER price SET DEFAULT 1"],
        "demo_item.price has a default, from which NULL could not be told",
    ),
    "a domain with a default": (
        ["CREATE DOMAIN amount AS integer DEFAULT 5", "ALTER TABLE demo_item ALTER price TYPE amount"],
        "demo_item.price is of the domain amount, which has a default, or takes no NULL",
    ),
    "many rows": (
        [f"INSERT INTO demo_item (name, code, price, kind_id) {_MANY}"],
        "demo_item has more than 100000 rows, which would be filled while nobody else can use it",
    ),
}


@pytest.mark.parametrize("case", _REFUSED)
def test_what_a_second_column_is_not_right_with_is_refused(
    pg_databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    assert_refused(pg_databases, tmp_path, *_REFUSED[case])


@pytest.mark.parametrize("case", _HINDERED)
def test_a_table_that_a_second_column_is_not_right_with_is_refused(
    pg_database: PostgresDatabase, tmp_path: Path, case: str
) -> None:
    statements, message = _HINDERED[case]
    project = project_with(tmp_path, pg_database, _PRICE)
    run(pg_database, statements)
    before = dump(pg_database.dsn)

    refused = project.run("apply_migrations", "--expand")

    assert (refused.returncode, f"Rename field price on item to cost: {message}" in refused.stderr) == (3, True)
    assert "set expand_contract = false for this database, or make the change in two releases" in refused.stderr
    assert dump(pg_database.dsn) == before


def test_what_the_same_run_puts_in_the_way_is_found_when_it_is_there(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    statements = "; ".join(_HINDERED["triggers"][0])
    project = project_with(tmp_path, pg_database, [f'migrations.RunSQL("{statements}", "")', *_PRICE])
    before = dump(pg_database.dsn)

    failed = project.run("apply_migrations", "--expand")

    assert (failed.returncode, _HINDERED["triggers"][1] in failed.stderr + failed.stdout) == (1, True)
    assert dump(pg_database.dsn) == before


_ARRAYS = "from django.contrib.postgres.fields import ArrayField"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("models.CharField(max_length=3)", "tags on item changes what its arrays hold: at most 3 characters"),
        ("models.IntegerField()", "changes its type from CharField to IntegerField"),
        ("models.CharField(max_length=50), size=2", None),
    ],
)
def test_members_of_an_array_may_only_become_longer(
    pg_database: PostgresDatabase, tmp_path: Path, field: str, message: str | None
) -> None:
    first = migration(
        "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
        "('tags', ArrayField(models.CharField(max_length=9)))])",
        functions=_ARRAYS,
    )
    project = SmallProject(tmp_path, {"default": pg_database.django}, {"demo.0001_item": first})
    project.succeed("migrate", "--verbosity=0")
    run(pg_database, ["INSERT INTO demo_item (tags) VALUES ('{nine,letters}')"])
    before = dump(pg_database.dsn)
    alter = f"migrations.AlterField('item', 'tags', ArrayField({field}))"
    project.write_migration("demo.0002_tags", migration(alter, after=[("demo", "0001_item")], functions=_ARRAYS))

    outcome = project.run("apply_migrations", "--expand")

    if message is not None:
        assert (outcome.returncode, message in outcome.stderr, dump(pg_database.dsn)) == (3, True, before)
    else:
        assert outcome.returncode == 0, outcome.stderr
        run(pg_database, ["INSERT INTO demo_item (tags) VALUES ('{of,three,members}')"])


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_where_no_trigger_keeps_two_columns_equal_it_is_refused(databases: NewDatabases, tmp_path: Path) -> None:
    message = "Rename field price on item to cost: the release still running knows the old name"
    assert_refused(databases, tmp_path, _PRICE, message)


def test_a_later_deploy_leaves_both_names_alone(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, _PRICE)
    project.succeed("apply_migrations", "--expand")
    for field, is_refused in (("cost", True), ("price", True), ("size", False)):
        operation = f"migrations.AddField('item', '{field}', models.IntegerField(null=True))"
        if field == "cost":
            operation = "migrations.AlterField('item', 'cost', models.BigIntegerField())"
        project.write_migration("demo.0003_more", migration(operation, after=[("demo", "0002_next")]))

        done = project.run("apply_migrations", "--expand")

        assert (done.returncode, "touches what is still held back" in done.stderr) == (3 * is_refused, is_refused)
    run(pg_database, ["INSERT INTO demo_item (name, code, price, kind_id, size) VALUES ('n', 'n', 5, 1, 9)"])
    project.succeed("finalise_migrations")


_FIRST = "migrations.AlterField('item', 'code', models.CharField(max_length=10, unique=True))"
_BEST = "migrations.AddField('kind', 'best', models.ForeignKey('demo.Item', models.SET_NULL, null=True%s))"
_BEHIND = {
    "a new key": (
        [_BEST % "", "migrations.RenameField('kind', 'best', 'top')"],
        "best on kind to top: held back is stop",
    ),
    "what a new key refers to": (
        [_BEST % ", to_field='code'", "migrations.RenameField('item', 'code', 'mark')"],
        "code on item to mark: held back is stop following deletes from demo_item in demo_kind",
    ),
    "what was unique": (
        [
            "migrations.AlterField('item', 'code', models.CharField(max_length=10))",
            "migrations.RenameField('item', 'code', 'mark')",
        ],
        "code on item to mark: something unique that it was in has just been removed",
    ),
}


@pytest.mark.parametrize("case", _BEHIND)
@pytest.mark.parametrize("apart", [False, True], ids=["in one migration", "in two"])
def test_what_the_same_deploy_has_done_before_is_looked_at(
    pg_database: PostgresDatabase,
    tmp_path: Path,
    case: str,
    apart: bool,  # noqa: FBT001
) -> None:
    project = project_with(tmp_path, pg_database, [_FIRST])
    project.succeed("migrate", "--verbosity=0")
    (first, renames), told = _BEHIND[case]
    operations = [first] if apart else [first, renames]
    project.write_migration("demo.0003_then", migration(*operations, after=[("demo", "0002_next")]))
    if apart:
        project.write_migration("demo.0004_names", migration(renames, after=[("demo", "0003_then")]))
    before = dump(pg_database.dsn)

    refused = project.run("apply_migrations", "--expand")

    assert (refused.returncode, told in refused.stderr) == (3, True), refused.stderr
    assert dump(pg_database.dsn) == before
    checked = project.run("check", "--database=default")
    assert "Traceback" not in checked.stderr
