"""Rows that the release still running deletes, and those that the new one has made to refer to them."""

from pathlib import Path

import psycopg
import pytest

from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import migration
from tests.support.two_releases import assert_both_work, assert_goes_back, project_with

_LABEL = (
    "migrations.CreateModel('Label', [('id', models.BigAutoField(primary_key=True)), "
    "('item', models.ForeignKey('demo.Item', models.CASCADE)), "
    "('kind', models.ForeignKey('demo.Kind', models.SET_NULL, null=True)), "
    "('kinds', models.ManyToManyField('demo.Kind', related_name='+'))])"
)
_MARK = (
    "migrations.CreateModel('Mark', [('id', models.BigAutoField(primary_key=True)), "
    "('label', models.ForeignKey('demo.Label', models.CASCADE))])"
)
_OTHER = "migrations.AddField('item', 'other', models.ForeignKey('demo.Kind', models.{}, '+', null=True))"
_MORE = "migrations.AddField('item', 'more', models.ManyToManyField('demo.Kind', related_name='+'))"
_CASES = {
    "models": (
        [_LABEL, _MARK],
        [
            "INSERT INTO demo_label (item_id, kind_id) VALUES (1, 1), (2, 2)",
            "INSERT INTO demo_label_kinds (label_id, kind_id) VALUES (1, 1), (2, 1), (2, 2)",
            "INSERT INTO demo_mark (label_id) VALUES (1), (2)",
            "DELETE FROM demo_item_tags",
            "DELETE FROM demo_item WHERE id = 2",
        ],
    ),
    "a parent that is renamed": (
        [_MARK.replace("label", "item").replace("Label", "Item"), "migrations.RenameModel('Item', 'Thing')"],
        [
            "INSERT INTO demo_mark (item_id) VALUES (1), (2)",
            "DELETE FROM demo_item_tags",
            "DELETE FROM demo_item WHERE id = 2",
        ],
    ),
    "a key that is made twice": (
        [_OTHER.format("CASCADE"), "migrations.RemoveField('item', 'other')", _OTHER.format("CASCADE")],
        ["UPDATE demo_item SET other_id = 2 WHERE id = 1"],
    ),
    "a nullable key": ([_OTHER.format("CASCADE")], ["UPDATE demo_item SET other_id = 2 WHERE id = 1"]),
    "a relation to many": ([_MORE], ["INSERT INTO demo_item_more (item_id, kind_id) VALUES (1, 1), (2, 2)"]),
}


@pytest.mark.parametrize("case", _CASES)
def test_both_releases_work_between_the_halves(pg_databases: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_both_work(pg_databases, tmp_path, *_CASES[case])


@pytest.mark.parametrize("case", _CASES)
def test_going_back_before_the_contract_leaves_no_trigger(
    pg_databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    assert_goes_back(pg_databases, tmp_path, _CASES[case][0])


def test_what_refers_to_a_deleted_row_goes_with_it(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    operations = [_LABEL, _MARK, _MORE, _OTHER.format("SET_NULL")]
    project_with(tmp_path, pg_database, operations).succeed("apply_migrations", "--expand")
    with pg_database.connect() as session:
        for statement in (
            "DROP ROLE IF EXISTS old_release",
            "CREATE ROLE old_release",
            "GRANT SELECT, DELETE ON demo_item, demo_kind, demo_item_tags TO old_release",
            *_CASES["models"][1][:3],
            "UPDATE demo_item SET other_id = 2",
            "INSERT INTO demo_item_more (item_id, kind_id) VALUES (1, 1), (1, 2), (2, 1)",
            "SET ROLE old_release",
            "DELETE FROM demo_item_tags",
            "DELETE FROM demo_item WHERE id = 2",
            "DELETE FROM demo_kind WHERE id = 2",
            "RESET ROLE",
            "DROP OWNED BY old_release",
            "DROP ROLE old_release",
        ):
            session.execute(statement)

        found = {
            table: session.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()
            for table, columns in {
                "demo_label": "id, item_id, kind_id",
                "demo_label_kinds": "label_id, kind_id",
                "demo_mark": "id, label_id",
                "demo_item": "id, other_id",
                "demo_item_more": "item_id, kind_id",
            }.items()
        }
    assert found == {
        "demo_label": [(1, 1, 1)],
        "demo_label_kinds": [(1, 1)],
        "demo_mark": [(1, 1)],
        "demo_item": [(1, None)],
        "demo_item_more": [(1, 1)],
    }


def test_what_protects_a_row_does_so_from_either_release(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, [_OTHER.format("PROTECT")])

    assert "Held back" not in project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        session.execute("UPDATE demo_item SET other_id = 2 WHERE id = 1")
        session.execute("DELETE FROM demo_item_tags")
        session.execute("DELETE FROM demo_item WHERE id = 2")
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            session.execute("DELETE FROM demo_kind WHERE id = 2")


def test_the_next_release_may_change_a_model_whose_keys_are_followed(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = project_with(tmp_path, pg_database, [_LABEL])
    project.succeed("apply_migrations", "--expand")
    project.write_migration(
        "demo.0003_more",
        migration("migrations.AddField('label', 'text', models.TextField(null=True))", after=[("demo", "0002_next")]),
    )

    project.succeed("apply_migrations", "--expand")

    assert "stop following deletes" in project.succeed("finalise_migrations")
    with pg_database.connect() as session:
        assert session.execute("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'smooth%'").fetchone() == (0,)
        assert session.execute("SELECT count(*) FROM pg_proc WHERE proname LIKE 'smooth%'").fetchone() == (0,)


def test_a_trigger_of_somebody_elses_is_left_alone(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, [_OTHER.format("CASCADE")])
    project.succeed("apply_migrations", "--expand")
    triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'demo_kind'::regclass AND NOT tgisinternal"
    with pg_database.connect() as session:
        [(name,)] = session.execute(triggers).fetchall()
        session.execute(f"DROP TRIGGER {name} ON demo_kind")
        on_update = "BEFORE UPDATE ON demo_kind FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
        session.execute(f"CREATE TRIGGER {name} {on_update}")

    project.succeed("finalise_migrations")

    with pg_database.connect() as session:
        assert session.execute(triggers).fetchall() == [(name,)]
