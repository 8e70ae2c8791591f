"""Columns that get another name: both releases read and write them, each by the name that it knows."""

import json
from pathlib import Path
from typing import cast

import psycopg
import pytest

from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.sampling import one_in
from tests.support.serving import serving
from tests.support.small_migrations import run_python
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import (
    assert_both_work,
    assert_goes_back,
    content,
    project_with,
    run,
    without_rows,
)

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
# What a column has by itself, and with others.
_MORE = [
    "migrations.AlterField('item', 'name', models.CharField(max_length=40, db_index=True, db_default='none'))",
    "migrations.AlterField('item', 'code', models.SlugField(max_length=10, unique=True))",
    "migrations.AlterField('item', 'price', models.PositiveIntegerField(db_comment='in cents'))",
    "migrations.AddIndex('item', models.Index(models.functions.Upper('note'), name='upper_note'))",
    "migrations.AlterUniqueTogether('item', {('price', 'code')})",
    "migrations.AddIndex('item', models.Index(fields=['-price', 'name'], name='dearest'))",
    "migrations.AddConstraint('item', models.UniqueConstraint(fields=['code', 'kind'], name='one_of_kind'))",
    "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(price__lt=99), name='cheap'))",
]
# As `makemigrations` writes it.
_NAMES = [
    "migrations.RemoveConstraint('item', 'one_of_kind')",
    "migrations.RemoveConstraint('item', 'cheap')",
    "migrations.RemoveIndex('item', 'dearest')",
    "migrations.RenameField('item', 'name', 'title')",
    "migrations.RenameField('item', 'code', 'mark')",
    "migrations.RenameField('item', 'note', 'remark')",
    "migrations.RenameField('item', 'price', 'cost')",
    "migrations.RenameField('item', 'kind', 'sort')",
    "migrations.AlterUniqueTogether('item', {('cost', 'mark')})",
    "migrations.AddIndex('item', models.Index(fields=['-cost', 'title'], name='dearest'))",
    "migrations.AddConstraint('item', models.UniqueConstraint(fields=['mark', 'sort'], name='one_of_kind'))",
    "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(cost__lt=99), name='cheap'))",
]


@pytest.mark.parametrize("case", one_in(2, _CASES))
def test_both_releases_work_between_the_halves(pg_databases: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_both_work(pg_databases, tmp_path, *_CASES[case])


@pytest.mark.parametrize("case", one_in(2, _CASES))
def test_going_back_before_the_contract_gives_the_old_name_back(
    pg_databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    assert_goes_back(pg_databases, tmp_path, _CASES[case][0])


def _with_more(directory: Path, database: PostgresDatabase) -> SmallProject:
    """Return a project whose columns have all that a column can have, and get other names next."""
    project = project_with(directory, database, _MORE)
    project.succeed("migrate", "--verbosity=0")
    project.write_migration("demo.0003_names", migration(*_NAMES, after=[("demo", "0002_next")]))
    return project


def test_whatever_a_column_has_is_in_the_end_as_migrate_makes_it(pg_databases: NewDatabases, tmp_path: Path) -> None:
    stock, ours = (cast("PostgresDatabase", pg_databases.new()) for _ in range(2))
    _with_more(tmp_path / "stock", stock).succeed("migrate", "--verbosity=0")
    project = _with_more(tmp_path / "ours", ours)

    held = project.succeed("apply_migrations", "--expand")

    assert "one_of_kind" not in held.partition("Held back")[2]
    with ours.connect() as session:
        for unique in ("code, kind_id", "mark, sort_id"):
            insert = "INSERT INTO demo_item (code, note, price, kind_id) VALUES ('a', 'n', 5, 1)"
            session.execute(f"{insert} ON CONFLICT ({unique}) DO NOTHING".encode())
        for names in ("(name, code, note, price, kind_id)", "(title, mark, remark, cost, sort_id)"):
            session.execute(f"INSERT INTO demo_item {names} VALUES (DEFAULT, '{names[1:9]}', 'n', 5, 1)".encode())
            bad = f"INSERT INTO demo_item {names} VALUES ('again', 'other', 'n', %s, %s)".encode()
            for values, error in (
                ((-1, 1), psycopg.errors.CheckViolation),
                ((5, 9), psycopg.errors.ForeignKeyViolation),
                ((None, 1), psycopg.errors.NotNullViolation),
            ):
                with pytest.raises(error):
                    session.execute(bad, values)
        with pytest.raises(psycopg.errors.UniqueViolation):
            session.execute("UPDATE demo_item SET code = 'a'")
        for name in ("name", "title"):
            session.execute(f"UPDATE demo_item SET {name} = 'some'".encode())
            session.execute(f"UPDATE demo_item SET {name} = DEFAULT".encode())
        rows = session.execute("SELECT name, title, code, mark, kind_id, sort_id FROM demo_item WHERE id > 2")
        assert rows.fetchall() == [
            ("none", "none", "name, co", "name, co", 1, 1),
            ("none", "none", "title, m", "title, m", 1, 1),
        ]
    project.succeed("finalise_migrations")
    assert without_rows(ours) == without_rows(stock)


def test_whatever_a_column_has_comes_back(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = _with_more(tmp_path, pg_database)
    before = content(pg_database)
    project.succeed("apply_migrations", "--expand")

    project.succeed("apply_migrations", "demo", "0002")

    assert content(pg_database) == before


@pytest.mark.parametrize("is_atomic", [True, False])
def test_a_failure_behind_it_takes_it_back(pg_database: PostgresDatabase, tmp_path: Path, is_atomic: bool) -> None:  # noqa: FBT001
    project = _with_more(tmp_path, pg_database)
    fails = "migrations.RunSQL('SELECT 1 / 0', '')"
    source = migration(*_NAMES, fails, after=[("demo", "0002_next")], atomic=is_atomic)
    project.write_migration("demo.0003_names", source)
    before = content(pg_database)

    failed = project.run("apply_migrations", "--expand")

    assert (failed.returncode, "division by zero" in failed.stderr + failed.stdout) == (1, True)
    assert content(pg_database) == before


def test_what_a_killed_call_has_left_is_taken_back(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    def write_last(code: str) -> None:
        run_code = "migrations.RunPython(forwards, nothing)"
        source = migration(run_code, after=[("demo", "0003_names")], atomic=False, functions=run_python(code))
        project.write_migration("demo.0004_last", source)

    project = _with_more(tmp_path, pg_database)
    project.write_migration("demo.0003_names", migration(*_NAMES, after=[("demo", "0002_next")], atomic=False))
    write_last("print('waiting', flush=True); threading.Event().wait()")
    before = content(pg_database)
    with project.start("apply_migrations", "--expand") as process:
        assert process.stdout is not None
        assert any(line.endswith("waiting\n") for line in process.stdout)
        process.kill()
    assert content(pg_database) != before
    write_last("1 / 0")

    failed = project.run("apply_migrations", "--expand")

    assert (failed.returncode, "Taking back what it left:" in failed.stdout) == (1, True)
    assert content(pg_database) == before


def test_lint_tells_what_becomes_of_it(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = project_with(tmp_path, pg_database, _PRICE)

    [database] = json.loads(project.run("lint_migrations", "--json").stdout)["databases"]
    [told] = database["migrations"]

    rename = "Rename field price on item to cost"
    assert told["expand"] == [f"{rename}, and keep the column price beside it"]
    assert told["contract"] == ["drop column demo_item.price"]
    assert told["locks"] == ["ACCESS EXCLUSIVE on demo_item, with all its rows where no deploy fills them ahead"]
    assert told["rewrites"] == [f"{rename}: every row is filled for the release still running"]
    assert told["old_release"] == [f"{rename}: it reads and writes price, which a trigger keeps equal"]
    assert told["new_release"] == [f"{rename}: it uses the column by its new name"]


def test_lint_does_not_tell_of_what_stays_as_it_is(pg_database: PostgresDatabase, tmp_path: Path) -> None:
    project = _with_more(tmp_path, pg_database)

    [database] = json.loads(project.run("lint_migrations", "--json").stdout)["databases"]

    [told] = database["migrations"]
    assert [text for text in told["expand"] if not text.startswith("Rename field")] == [
        "Remove constraint cheap from model item",
        "Alter unique_together for item (1 constraint(s))",
    ]
    assert [text for text in told["contract"] if not text.startswith("drop column")] == [
        "add constraint cheap to demo_item"
    ]


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


def test_what_the_same_migration_has_written_is_there_by_both_names(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    writes = "INSERT INTO demo_item (name, code, price, kind_id) VALUES ('new', 'n', 5, 1)"
    project = project_with(tmp_path, pg_database, [f'migrations.RunSQL("{writes}", "")', *_PRICE])

    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        assert session.execute("SELECT price, cost FROM demo_item WHERE name = 'new'").fetchall() == [(5, 5)]


def test_a_default_is_found_whatever_the_search_path_of_its_writer(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = project_with(tmp_path, pg_database, _PRICE)
    with pg_database.connect() as session:
        session.execute("CREATE SCHEMA ext")
        session.execute("CREATE FUNCTION ext.gen() RETURNS integer LANGUAGE sql AS 'SELECT 7'")
        session.execute("ALTER TABLE demo_item ALTER COLUMN price SET DEFAULT ext.gen()")
        name = session.info.dbname
        session.execute(f"ALTER DATABASE {name} SET search_path = public, ext")
    project.succeed("apply_migrations", "--expand")

    with pg_database.connect() as session:
        session.execute("SET search_path = public")
        session.execute("UPDATE demo_item SET price = NULL WHERE name = 'tea'")
        assert session.execute("SELECT price, cost FROM demo_item WHERE name = 'tea'").fetchall() == [(7, 7)]
