"""Tables that get another name: both releases use them, each by the name that it knows."""

from pathlib import Path

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_project import migration
from tests.support.two_releases import (
    assert_both_work,
    assert_goes_back,
    assert_refused,
    content,
    project_with,
    without_rows,
)

_MODEL = "migrations.RenameModel('Item', 'Thing')"
_BOTH = [
    "INSERT INTO demo_kind (label) VALUES ('old')",
    "INSERT INTO demo_item_tags (item_id, kind_id) VALUES (1, 3)",
    "INSERT INTO demo_sort (label) VALUES ('new')",
    "INSERT INTO demo_thing_tags (thing_id, sort_id) VALUES (1, 4)",
    "DELETE FROM demo_item_tags WHERE item_id = 1 AND kind_id = 4",
]
_CASES = {
    "rename model": (
        ["migrations.RenameModel('Item', 'Thing')", "migrations.AlterModelOptions('thing', {'ordering': ['name']})"],
        [
            "INSERT INTO demo_thing (name, code, note, price, kind_id) VALUES ('new', 'n', 'n', 5, 1)",
            "INSERT INTO demo_thing_tags (thing_id, kind_id) VALUES (1, 2) ON CONFLICT DO NOTHING",
        ],
    ),
    "another table": (
        ["migrations.AlterModelTable('item', 'things')"],
        ["INSERT INTO things (name, code, note, price, kind_id) VALUES ('new', 'n', 'n', 5, 1)"],
    ),
    "two models that are related": (["migrations.RenameModel('Kind', 'Sort')", _MODEL], _BOTH),
    "rename model, and fields beside": (
        [
            "migrations.RenameModel('Item', 'Thing')",
            "migrations.RemoveField('thing', 'price')",
            "migrations.AddField('thing', 'size', models.IntegerField(default=7))",
        ],
        ["INSERT INTO demo_thing (name, code, note, kind_id, size) VALUES ('new', 'n', 'n', 1, 9)"],
    ),
}
_REFUSED = {
    "a name that is taken by a view": (
        [
            "migrations.RenameModel('Item', 'Thing')",
            "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True))])",
        ],
        "Create model Item: its name is still that of a model that has been renamed",
    ),
    "a column under a view": (
        [
            "migrations.RenameModel('Item', 'Thing')",
            "migrations.AlterField('thing', 'price', models.BigIntegerField())",
        ],
        "Alter field price on thing: its table has just been renamed",
    ),
    "a name of what is held back": (
        ["migrations.RemoveField('item', 'price')", "migrations.RenameModel('Item', 'Thing')"],
        "Rename model Item to Thing: something else of its table is held back",
    ),
    "a column under a view that is yet to come": (
        ["migrations.AlterModelTable('kind', 'demo_kind')", "migrations.RenameModel('Kind', 'Sort')", _MODEL],
        "Rename model Kind to Sort: it renames kind_id to sort_id in demo_item_tags, which stays",
    ),
    "a column of a table that stays": (
        ["migrations.RenameModel('Kind', 'Sort')"],
        "Rename model Kind to Sort: it renames kind_id to sort_id in demo_item_tags, which stays",
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


def test_related_models_may_be_renamed_in_either_order(pg_databases: NewDatabases, tmp_path: Path) -> None:
    operations = [_MODEL, "migrations.RenameModel('Kind', 'Sort')"]
    assert_both_work(pg_databases, tmp_path / "forwards", operations, _BOTH)
    stock, ours = pg_databases.new(), pg_databases.new()
    plain = project_with(tmp_path / "plain", stock, operations)
    plain.succeed("migrate", "--verbosity=0")
    project = project_with(tmp_path / "project", ours, operations)
    project.succeed("apply_migrations", "--expand")

    project.succeed("apply_migrations", "demo", "0001")

    # Django itself gives foreign keys other names on this way back.
    plain.succeed("migrate", "demo", "0001", "--verbosity=0")
    assert without_rows(ours) == without_rows(stock)
    assert project.succeed("finalise_migrations") == "  Nothing is held back.\n"


def test_related_models_whose_renames_are_committed_apart_are_refused(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    operations = ["migrations.RenameModel('Kind', 'Sort')", _MODEL]
    project = project_with(tmp_path, pg_database, operations)
    apart = migration(*operations, after=[("demo", "0001_first")]).replace("atomic = True", "atomic = False")
    project.write_migration("demo.0002_next", apart)
    before = content(pg_database)

    refused = project.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert "it renames kind_id to sort_id in demo_item_tags, which stays" in refused.stderr
    assert content(pg_database) == before


def test_a_related_model_waits_for_the_rename_of_an_earlier_deploy(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = project_with(tmp_path, pg_database, [_MODEL])
    project.succeed("apply_migrations", "--expand")
    operation = "migrations.RenameModel('Kind', 'Sort')"
    project.write_migration("demo.0003_sort", migration(operation, after=[("demo", "0002_next")]))
    before = content(pg_database)

    refused = project.run("apply_migrations", "--expand")

    assert refused.returncode == 3
    assert "it renames kind_id to sort_id in demo_thing_tags, which stays" in refused.stderr
    assert content(pg_database) == before


@pytest.mark.parametrize("case", _REFUSED)
def test_what_no_view_can_stand_for_is_refused(pg_databases: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_refused(pg_databases, tmp_path, *_REFUSED[case])


@pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
def test_where_views_take_no_writes_it_is_refused(databases: NewDatabases, tmp_path: Path) -> None:
    message = "Rename model Item to Thing: the release still running knows the old name"
    assert_refused(databases, tmp_path, [_MODEL], message)


def test_the_old_name_does_what_the_table_did(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project_with(tmp_path, pg_database, [_MODEL]).succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        insert = "INSERT INTO demo_item (name, code, note, price, kind_id) VALUES ('old', 'o', 'z', 3, 1)"
        row = session.execute(f"{insert} RETURNING id, name").fetchone()
        assert row == (3, "old")
        again = "INSERT INTO demo_item (id, name, code, price, kind_id) VALUES (3, 'again', 'o', 3, 1)"
        session.execute(f"{again} ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name")
        session.execute("SELECT 1 FROM demo_item WHERE id = 3 FOR UPDATE")
        session.execute("INSERT INTO demo_item_tags (item_id, kind_id) VALUES (3, 2)")
        session.execute("DELETE FROM demo_item_tags WHERE item_id = 1")
        names = session.execute("SELECT id, name FROM demo_thing ORDER BY id").fetchall()
        tags = session.execute("SELECT thing_id, kind_id FROM demo_thing_tags ORDER BY 1").fetchall()
    assert names == [(1, "tea"), (2, "jam"), (3, "again")]
    assert tags == [(2, 2), (3, 2)]
