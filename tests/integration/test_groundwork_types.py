"""A column of a large table gets another type by a second column, which was made before the transaction."""

from pathlib import Path

import psycopg
import pytest

from tests.support.django_connections import ask
from tests.support.histories import Database
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.rows_read import rows_read
from tests.support.small_project import SmallProject, migration
from tests.support.two_releases import assert_killed_finalise_is_taken_back, project_with, run, without_rows

pytestmark = pytest.mark.timeout(240)

_TYPES = [
    "migrations.AlterField('item', 'price', models.BigIntegerField())",
    "migrations.AlterField('item', 'code', models.CharField(max_length=8))",
]
_INDEXES = [
    "CREATE INDEX dear ON demo_item (price DESC, code) WHERE price > 1",
    'CREATE INDEX "the code" ON demo_item (lower(code)) INCLUDE (price)',
]
_MORE = [
    *_INDEXES,
    "ALTER TABLE demo_item ADD CONSTRAINT one_price UNIQUE (price, code)",
    "ALTER TABLE demo_item ADD CONSTRAINT paid CHECK (price >= 0)",
    "ALTER TABLE demo_item ADD CONSTRAINT named CHECK (price <> 7 OR code <> 'price')",
    "ALTER TABLE demo_item ALTER COLUMN price SET DEFAULT 5",
    "COMMENT ON COLUMN demo_item.price IS 'in cent''s'",
    "GRANT SELECT (price), UPDATE (price, code) ON demo_item TO PUBLIC",
]
_MANY = (
    "INSERT INTO demo_item (name, code, price, kind_id) SELECT 'x', 'k' || n, n, 1 FROM generate_series(8, 100007) AS n"
)
_FILE = "SELECT pg_relation_filenode('demo_item')"
_KIND = (
    "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'demo_item'::regclass AND attname = %s"
)


def _asked(database: Database, query: str, *values: str) -> object:
    assert isinstance(database, PostgresDatabase)
    with psycopg.connect(database.dsn) as session:
        [(answer,)] = session.execute(query.encode(), values or None).fetchall()
    return answer


def _schema(database: Database) -> list[str]:
    """Return the lines of a dump without rows, in any order of columns."""
    lines = str(without_rows(database)).splitlines()
    return sorted(line.rstrip(",") for line in lines if not line.startswith("COPY "))


def _expanded(directory: Path, database: Database) -> SmallProject:
    project = project_with(directory, database, _TYPES)
    run(database, [*_MORE, _MANY])
    project.succeed("apply_migrations", "--expand")
    return project


def test_no_row_is_read_or_written_under_a_lock(pg_databases: NewDatabases, tmp_path: Path) -> None:
    stock, ours = pg_databases.new(), pg_databases.new()
    project = project_with(tmp_path / "stock", stock, _TYPES)
    run(stock, _MORE)
    project.succeed("migrate", "--verbosity=0")
    project = _expanded(tmp_path / "ours", ours)
    file = _asked(ours, _FILE)

    assert rows_read(project) == 0

    assert _asked(ours, _FILE) == file
    assert [_asked(ours, _KIND, name) for name in ("price", "code")] == ["bigint", "character varying(8)"]
    assert _asked(ours, "SELECT count(*) FROM demo_item WHERE price > 7 AND code = 'k' || price") == 100_000
    assert _schema(ours) == _schema(stock)


_LATE = """\
from django.core.management import call_command
from django.db import connection


def look(execute, sql, *rest):
    if "LOCK TABLE" in sql:
        other = connection.copy()
        with other.cursor() as cursor:
            cursor.execute("CREATE INDEX late ON demo_item (price)")
        other.close()
    return execute(sql, *rest)


with connection.execute_wrapper(look):
    call_command("finalise_migrations", verbosity=0)
"""


@pytest.mark.long
def test_what_came_meanwhile_is_kept(pg_databases: NewDatabases, tmp_path: Path) -> None:
    database = pg_databases.new()
    project = _expanded(tmp_path, database)
    file = _asked(database, _FILE)
    project.write("late.py", _LATE)

    project.succeed("shell", "--verbosity", "0", "--command", "import late")

    assert _asked(database, _FILE) != file
    assert _asked(database, "SELECT count(*) FROM pg_indexes WHERE indexname = 'late'") == 1
    assert _asked(database, _KIND, "price") == "bigint"
    assert "smooth_" not in "\n".join(line for line in _schema(database) if "smooth_migrations" not in line)


@pytest.mark.parametrize("statement", ["CREATE VIEW seen AS SELECT name FROM demo_item", _INDEXES[0]])
@pytest.mark.long
def test_a_small_table_is_written_anew(pg_databases: NewDatabases, tmp_path: Path, statement: str) -> None:
    stock, ours = pg_databases.new(), pg_databases.new()
    projects = [project_with(tmp_path / name, each, _TYPES) for name, each in (("stock", stock), ("ours", ours))]
    for database in (stock, ours):
        run(database, [statement])
    projects[0].succeed("migrate", "--verbosity=0")
    projects[1].succeed("apply_migrations", "--expand")

    projects[1].succeed("finalise_migrations")

    assert without_rows(ours) == without_rows(stock)


_THING = """\
migrations.RunSQL('CREATE SCHEMA other'),
migrations.CreateModel('Thing', [('id', models.BigAutoField(primary_key=True)),
    ('price', models.IntegerField(db_index=True))], options={'db_table': '"other"."thing"'}),
migrations.AddIndex('thing', models.Index(fields=['price', 'id'], name='dear'))"""


def test_the_table_may_be_of_another_schema(pg_databases: NewDatabases, tmp_path: Path) -> None:
    stock, ours = pg_databases.new(), pg_databases.new()
    projects = [
        SmallProject(tmp_path / name, {"default": each.django}, {"demo.0001_thing": migration(_THING)})
        for name, each in (("stock", stock), ("ours", ours))
    ]
    alter = "migrations.AlterField('thing', 'price', models.BigIntegerField(db_index=True))"
    for project, database in zip(projects, (stock, ours), strict=True):
        project.succeed("migrate", "--verbosity=0")
        project.write_migration("demo.0002_price", migration(alter, after=[("demo", "0001_thing")]))
        run(database, ["INSERT INTO other.thing (price) SELECT n FROM generate_series(1, 100001) AS n"])
    projects[0].succeed("migrate", "--verbosity=0")
    projects[1].succeed("apply_migrations", "--expand")
    file = _asked(ours, _FILE.replace("demo_item", "other.thing"))

    projects[1].succeed("finalise_migrations")

    assert _asked(ours, _FILE.replace("demo_item", "other.thing")) == file
    assert _schema(ours) == _schema(stock)


_COMMENT = """
    SELECT obj_description(c.oid, 'pg_class') FROM pg_class c WHERE relname = 'dear'
    UNION ALL SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'paid' ORDER BY 1
"""


@pytest.mark.long
@pytest.mark.parametrize("what", ["INDEX dear", "CONSTRAINT paid ON demo_item"])
def test_a_comment_that_a_second_column_would_lose_is_kept(
    pg_databases: NewDatabases, tmp_path: Path, what: str
) -> None:
    database = pg_databases.new()
    project = _expanded(tmp_path, database)
    run(database, [f"COMMENT ON {what} IS 'mind it'"])

    project.succeed("finalise_migrations")

    assert ask(database, _COMMENT) == [("mind it",), (None,)]
    assert _asked(database, _KIND, "price") == "bigint"


@pytest.mark.long
@pytest.mark.parametrize(
    "point", ["lay.before", "lay.after", "lay.after:2", "lay.after:9", "fill.after", "contract.before"]
)
def test_a_kill_leaves_what_the_next_call_takes_back(
    pg_databases: NewDatabases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    database = pg_databases.new()
    project = _expanded(tmp_path, database)

    assert_killed_finalise_is_taken_back(project, database, monkeypatch, point)

    project.succeed("finalise_migrations")
    assert _asked(database, _KIND, "price") == "bigint"
