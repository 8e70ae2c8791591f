"""A database that held nothing is made to hold nothing again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase

_PROGRAM = """
import json, sys
import django
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])})
django.setup()
from django.db import connection
from smooth_migrations.undo.emptiness import look_before, make_empty_again
before = look_before(connection)
if before.is_empty and len(sys.argv) > 2:
    with connection.cursor() as cursor:
        for statement in json.loads(sys.argv[2]):
            cursor.execute(statement)
    make_empty_again(connection, before, json.loads(sys.argv[3]))
print(before.is_empty)
"""

_EVERYTHING_IN_POSTGRESQL = [
    "CREATE EXTENSION hstore",
    "CREATE SCHEMA extra",
    "CREATE TYPE mood AS ENUM ('fine')",
    "CREATE DOMAIN extra.positive AS integer CHECK (VALUE > 0)",
    "CREATE TYPE span AS RANGE (subtype = float8)",
    "CREATE TYPE pair AS (a integer, b mood)",
    "CREATE COLLATION german (provider = libc, locale = 'C')",
    'CREATE TABLE "A table" (id serial PRIMARY KEY, mood mood, tags hstore)',
    'CREATE TABLE child (id integer GENERATED ALWAYS AS IDENTITY, parent integer REFERENCES "A table")',
    "CREATE TABLE parted (day date) PARTITION BY RANGE (day)",
    "CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')",
    'CREATE VIEW seen AS SELECT * FROM "A table"',
    "CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one",
    "CREATE SEQUENCE lone",
    "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER touched BEFORE UPDATE ON child FOR EACH ROW EXECUTE FUNCTION touch()",
    "CREATE PROCEDURE extra.work() LANGUAGE sql AS 'SELECT 1'",
    "CREATE AGGREGATE total (integer) (sfunc = int4pl, stype = integer)",
]
_EVERYTHING_IN_SQLITE = [
    "CREATE TABLE parent (id integer PRIMARY KEY AUTOINCREMENT)",
    "CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent (id))",
    "INSERT INTO parent VALUES (7)",
    "INSERT INTO child VALUES (1, 7)",
    "CREATE VIEW seen AS SELECT * FROM child",
    "CREATE INDEX by_parent ON child (parent)",
    "CREATE TRIGGER touched AFTER UPDATE ON child BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE words USING fts5(body)",
    "CREATE TABLE smooth_kept (id integer)",
]


def started(database: object, *further: object) -> "subprocess.CompletedProcess[str]":
    arguments = [json.dumps(argument) for argument in (database, *further)]
    return subprocess.run([sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False)


def run(database: object, *further: object) -> bool:
    """Return whether the database was found empty; given statements and our tables, run them and empty it again."""
    done = started(database, *further)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() == "True"


def test_everything_that_postgresql_can_hold_is_dropped_but_what_it_came_with(pg_database: PostgresDatabase) -> None:
    execute(pg_database, "CREATE EXTENSION citext; CREATE SCHEMA kept; GRANT USAGE ON SCHEMA kept TO PUBLIC")
    before = dump(pg_database.dsn)
    both = {**pg_database.django, "OPTIONS": {"options": "-c search_path=public,kept"}}

    assert run(both, _EVERYTHING_IN_POSTGRESQL, [])

    assert not diff(before, dump(pg_database.dsn))


def test_everything_that_sqlite_can_hold_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "some.sqlite3"

    assert run(
        {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)}, _EVERYTHING_IN_SQLITE, ["parent", "child", "words"]
    )

    assert "parent" not in (text := dump(path))
    assert "words" not in text
    assert "seen" not in text


@pytest.mark.parametrize(
    "thing", ["CREATE TABLE thing (id integer)", "CREATE VIEW thing AS SELECT 1 AS one"], ids=["table", "view"]
)
def test_a_database_that_holds_something_is_not_empty(databases: NewDatabases, thing: str) -> None:
    database = databases.new()
    assert run(database.django)
    execute(database, thing.replace(" thing ", " smooth_own "))
    assert run(database.django)
    execute(database, thing)
    assert not run(database.django)


@pytest.mark.parametrize(
    "thing",
    ["CREATE TYPE mood AS ENUM ('fine')", "CREATE SCHEMA s; CREATE TABLE s.t (id int)", "CREATE SCHEMA s"],
    ids=["type", "table elsewhere", "schema off the search path"],
)
def test_types_and_other_schemas_count(pg_database: PostgresDatabase, thing: str) -> None:
    execute(pg_database, thing)
    assert not run(pg_database.django)


def test_nothing_is_dropped_when_somebody_else_s_rows_are_there(databases: NewDatabases) -> None:
    database = databases.new()
    statements = [
        "CREATE TABLE ours (id integer)",
        "CREATE TABLE billing (id integer)",
        "INSERT INTO billing VALUES (1)",
    ]

    done = started(database.django, statements, ["ours"])

    assert "holds rows in tables that no migration makes: billing" in done.stderr
    assert all(table in dump(database.dsn) for table in ("ours", "billing"))


def test_rows_in_a_schema_that_somebody_else_made_meanwhile_are_not_ours(pg_database: PostgresDatabase) -> None:
    theirs = ["CREATE SCHEMA theirs", "CREATE TABLE theirs.ours AS SELECT 1 AS id"]

    done = started(pg_database.django, ["CREATE TABLE ours (id integer)", *theirs], ["ours"])

    assert "holds rows in tables that no migration makes: ours" in done.stderr
    assert "theirs.ours" in dump(pg_database.dsn)
