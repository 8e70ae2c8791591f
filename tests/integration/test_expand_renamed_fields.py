"""Columns that get another name: both releases read and write them, each by the name that it knows."""

from pathlib import Path

import psycopg
import pytest

from tests.support.dump import dump
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.serving import serving
from tests.support.small_project import migration
from tests.support.two_releases import assert_both_work, assert_goes_back, assert_refused, project_with, run

_PRICE = ["migrations.RenameField('item', 'price', 'cost')"]
_CASES = {
    "a column": (
        _PRICE,
        [
            "INSERT INTO demo_item (name, code, note, cost, kind_id) VALUES ('new', 'n', 'n', 5, 1)",
            "UPDATE demo_item SET cost = cost + 1",
        ],
    ),
    "a nullable column": (
        ["migrations.RenameField('item', 'note', 'remark')"],
        [
            "INSERT INTO demo_item (name, code, remark, price, kind_id) VALUES ('new', 'n', NULL, 5, 1)",
            "UPDATE demo_item SET remark = NULL WHERE id = 2",
        ],
    ),
    "a foreign key": (
        ["migrations.RenameField('item', 'kind', 'sort')"],
        ["INSERT INTO demo_item (name, code, note, price, sort_id) VALUES ('new', 'n', 'n', 5, 2)"],
    ),
    "several columns of one table": (
        [*_PRICE, "migrations.RenameField('item', 'code', 'mark')", "migrations.RenameField('kind', 'label', 'title')"],
        [
            "INSERT INTO demo_item (name, mark, note, cost, kind_id) VALUES ('new', 'n', 'n', 5, 2)",
            "INSERT INTO demo_kind (title) VALUES ('new')",
        ],
    ),
    "beside other changes of the table": (
        [
            "migrations.AddField('item', 'sise', models.IntegerField(default=7))",
            "migrations.RenameField('item', 'sise', 'size')",
            "migrations.RemoveField('item', 'note')",
            *_PRICE,
            "migrations.AlterField('item', 'cost', models.IntegerField(help_text='more'))",
            "migrations.AlterModelOptions('item', {'ordering': ['cost']})",
        ],
        ["INSERT INTO demo_item (name, code, cost, kind_id, size) VALUES ('new', 'n', 5, 1, 9)"],
    ),
}

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
    "many rows": (
        [f"INSERT INTO demo_item (name, code, price, kind_id) {_MANY}"],
        "demo_item has more than 100000 rows, which would be filled while nobody else can use it",
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_both_releases_work_between_the_halves(pg_databases: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_both_work(pg_databases, tmp_path, *_CASES[case])


@pytest.mark.parametrize("case", _CASES)
def test_going_back_before_the_contract_gives_the_old_name_back(
    pg_databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    assert_goes_back(pg_databases, tmp_path, _CASES[case][0])


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_where_no_trigger_keeps_two_columns_equal_it_is_refused(databases: NewDatabases, tmp_path: Path) -> None:
    message = "Rename field price on item to cost: the release still running knows the old name"
    assert_refused(databases, tmp_path, _PRICE, message)


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


def test_either_name_does_what_the_column_did(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    operations = ["migrations.RenameField('item', 'code', 'mark')", "migrations.RenameField('item', 'note', 'remark')"]
    project = project_with(tmp_path, pg_database, operations)
    run(
        pg_database,
        [
            "ALTER TABLE demo_item ADD CONSTRAINT one_code UNIQUE (code), ADD CHECK (code <> 'bad')",
            "ALTER TABLE demo_item ADD UNIQUE (note) DEFERRABLE INITIALLY DEFERRED",
            "CREATE INDEX lower_code ON demo_item (lower(code) text_pattern_ops) INCLUDE (name) WHERE code <> 'x'",
        ],
    )

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:

        def both(statement: str) -> list[tuple[object, ...]]:
            return session.execute(f"{statement} RETURNING code, mark, note, remark".encode()).fetchall()

        for code, note in (("code", "note"), ("mark", "remark")):
            insert = f"INSERT INTO demo_item (name, price, kind_id, {code}, {note})"
            assert both(f"{insert} VALUES ('{code}', 1, 1, '{code}', NULL)") == [(code, code, None, None)]
            again = f"{insert} VALUES ('{code}', 1, 1, '{code}', 'N') ON CONFLICT ({code}) DO UPDATE SET {note} = "
            assert both(f"{again} EXCLUDED.{code} || EXCLUDED.{note}") == [(code, code, f"{code}N", f"{code}N")]
            assert both(f"UPDATE demo_item SET {note} = NULL WHERE {code} = '{code}'") == [(code, code, None, None)]
            with session.cursor().copy(f"COPY demo_item (name, price, kind_id, {code}, {note}) FROM STDIN") as copy:
                copy.write_row(("copied", 1, 1, "copied", code))
            assert both(f"DELETE FROM demo_item WHERE {note} = '{code}'") == [("copied", "copied", code, code)]
            for refused in (f"UPDATE demo_item SET {code} = NULL", f"UPDATE demo_item SET {code} = 'bad'"):
                with pytest.raises(psycopg.errors.IntegrityError):
                    session.execute(refused.encode())
            session.execute(f"UPDATE demo_item SET {note} = name".encode())
            with session.transaction():
                session.execute(f"UPDATE demo_item SET {note} = 'jam' WHERE name = 'tea'".encode())
                session.execute(f"UPDATE demo_item SET {note} = 'tea' WHERE name = 'jam'".encode())
            session.execute("SET enable_seqscan = off")
            for condition in (f"{code} = 'a'", f"lower({code}) LIKE 'a%' AND {code} <> 'x'"):
                plan = session.execute(f"EXPLAIN SELECT 1 FROM demo_item WHERE {condition}".encode()).fetchall()
                assert "Index" in str(plan)


def test_whoever_was_allowed_to_use_the_column_may_use_it_by_either_name(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = project_with(tmp_path, pg_database, _PRICE)
    run(
        pg_database,
        [
            "DROP ROLE IF EXISTS old_writer",
            "CREATE ROLE old_writer",
            "GRANT SELECT (id, price), UPDATE (price) ON demo_item TO old_writer",
        ],
    )

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        session.execute("SET ROLE old_writer")
        session.execute("UPDATE demo_item SET price = price + 5")
        session.execute("UPDATE demo_item SET cost = cost + 5")
        assert session.execute("SELECT price, cost FROM demo_item ORDER BY id").fetchall() == [(11, 11), (12, 12)]
        session.execute("RESET ROLE")
        session.execute("DROP OWNED BY old_writer")
        session.execute("DROP ROLE old_writer")


def test_a_value_that_one_name_alone_has_is_told_before_it_is_dropped(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = project_with(tmp_path, pg_database, _PRICE)
    project.succeed("apply_migrations", "--expand")
    with pg_database.connect() as session:
        session.execute("SET session_replication_role = replica")
        session.execute("UPDATE demo_item SET price = 9 WHERE id = 2")

    refused = project.run("finalise_migrations")

    assert refused.returncode == 3
    assert "demo_item.price is not cost: 1 row (such as 2); find them by SELECT" in refused.stderr
    run(pg_database, ["UPDATE demo_item SET cost = 9 WHERE id = 2"])
    project.succeed("finalise_migrations")


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


def test_both_releases_serve_all_the_time(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path / "next", pg_database, _PRICE)
    with (
        serving(tmp_path / "old", pg_database, "old", "price") as old,
        serving(tmp_path / "back", pg_database, "back", "price") as back,
    ):
        old.go_on()
        project.succeed("apply_migrations", "--expand")
        with serving(tmp_path / "new", pg_database, "new", "cost") as new:
            new.go_on(5)
            old.go_on(5)
            rounds = {"old": old.stop(), "new": 0, "back": 0}
            rounds["new"] = new.stop()
        project.succeed("apply_migrations", "demo", "0001")
        back.go_on()
        project.succeed("apply_migrations", "--expand")
        rounds["back"] = back.stop()
    with serving(tmp_path / "last", pg_database, "last", "cost") as last:
        last.go_on()
        project.succeed("finalise_migrations")
        last.go_on()
        rounds["last"] = last.stop()

    with pg_database.connect() as session:
        for label, count in rounds.items():
            query = f"SELECT cost FROM demo_item WHERE name = '{label} kept' ORDER BY id"
            assert session.execute(query).fetchall() == [(number,) for number in range(count)]
