"""The fingerprint of a schema: what is no difference, and what taking one leaves as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from django.db import ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.fingerprint import Fingerprint, take
from tests.support.django_connections import connected
from tests.support.fingerprints import fingerprint_of
from tests.support.histories import Database, SqliteDatabase, Vendor, execute, vendor_of
from tests.support.pgbouncer import PgBouncer, why_not
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer

_RECORDS = "CREATE TABLE django_migrations (id integer, app varchar(99), name varchar(99), applied varchar(99))"
_SCHEMAS = {
    Vendor.POSTGRESQL: "CREATE TABLE item (id serial PRIMARY KEY, name varchar(20) DEFAULT '')",
    Vendor.SQLITE: "CREATE TABLE item (id integer PRIMARY KEY AUTOINCREMENT, name varchar(20))",
    Vendor.MYSQL: "CREATE TABLE item (id integer PRIMARY KEY AUTO_INCREMENT, name varchar(20))",
}
_ANALYZE = {
    Vendor.POSTGRESQL: "ANALYZE item; SELECT nextval('item_id_seq')",
    Vendor.SQLITE: "ANALYZE",
    Vendor.MYSQL: "ANALYZE TABLE item",
}


@pytest.fixture(params=list(Vendor))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database of each kind in turn, with a table and a recorded migration."""
    made: Database
    match request.param:
        case Vendor.POSTGRESQL:
            made = request.getfixturevalue("pg_database")
        case Vendor.MYSQL:
            made = request.getfixturevalue("mariadb_database")
        case _:
            made = SqliteDatabase(tmp_path / "some.sqlite3")
    execute(made, f"{_SCHEMAS[request.param]}; {_RECORDS}")
    execute(made, "INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', 'today')")
    return made


@contextmanager
def unprivileged(database: PostgresDatabase) -> Iterator[str]:
    """Make a role that may nothing; drop it with the block."""
    name = f"clerk_{uuid4().hex[:12]}"
    execute(database, f"CREATE ROLE {name} LOGIN")
    try:
        yield name
    finally:
        execute(database, f"DROP OWNED BY {name}; DROP ROLE {name}")


def run(connection: BaseDatabaseWrapper, statements: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statements)


def value(connection: BaseDatabaseWrapper, query: str) -> object:
    with connection.cursor() as cursor:
        cursor.execute(query)
        row = cursor.fetchone()
    return row[0] if row else None


def test_both_descriptions_of_one_thing_stand_together_in_the_order_of_the_things() -> None:
    before = Fingerprint(("a", "table t column x: text", "table t column y: text", "twice", "twice"))
    after = Fingerprint(("b", "table t column x: integer", "table t column y: text", "twice"))

    assert before.differences(after) == (
        "- a",
        "+ b",
        "- table t column x: text",
        "+ table t column x: integer",
        "- twice",
    )
    assert before.differences(before) == ()


def test_rows_and_counters_and_statistics_and_times_of_records_are_no_difference(database: Database) -> None:
    before = fingerprint_of(database)

    execute(database, "INSERT INTO item (name) VALUES ('tea'), ('jam')")
    execute(database, "UPDATE django_migrations SET id = 7, applied = 'tomorrow'")
    execute(database, _ANALYZE[vendor_of(database)])

    assert before.is_known
    assert "migration shop.0001_initial" in before.lines
    assert before.differences(fingerprint_of(database)) == ()


def test_what_the_product_keeps_for_itself_is_left_out_with_everything_of_it(database: Database) -> None:
    before = fingerprint_of(database)

    execute(database, _SCHEMAS[vendor_of(database)].replace("item", "smooth_item"))
    execute(database, "CREATE UNIQUE INDEX by_name ON smooth_item (name)")
    execute(database, "CREATE VIEW smooth_seen AS SELECT id FROM smooth_item")

    assert before.differences(fingerprint_of(database)) == ()


def test_what_another_transaction_has_not_committed_is_seen_in_that_one_alone(pg_database: PostgresDatabase) -> None:
    with connected(pg_database.django) as connection:
        before = take(connection)
        connection.set_autocommit(False)
        run(connection, "CREATE SCHEMA extra")

        assert before.differences(take(connection)) == ("+ schema extra", "+ schema extra owner: postgres")
        assert before.differences(fingerprint_of(pg_database)) == ()
        connection.rollback()


def test_a_transaction_goes_on_with_its_settings_and_without_a_lock_more(pg_database: PostgresDatabase) -> None:
    execute(pg_database, "CREATE TABLE item (id integer); CREATE VIEW seen AS SELECT id FROM item")
    settings = "SELECT concat_ws('|', current_setting('search_path'), current_setting('timezone'), txid_current())"
    locks = "SELECT count(*) FROM pg_locks WHERE pid = {} AND locktype = 'relation'"
    with connected(pg_database.django) as connection, pg_database.connect() as other:
        connection.set_autocommit(False)
        run(connection, "SET LOCAL search_path TO nowhere, public; SET LOCAL timezone TO 'Asia/Tokyo'")
        before = value(connection, settings)
        pid = value(connection, "SELECT pg_backend_pid()")
        locked = other.execute(locks.format(pid)).fetchone()

        take(connection)

        assert other.execute(locks.format(pid)).fetchone() == locked
        assert value(connection, settings) == before
        connection.rollback()


def test_outside_a_transaction_none_is_left_open_and_the_session_keeps_its_settings(
    pg_database: PostgresDatabase,
) -> None:
    with connected(pg_database.django) as connection, pg_database.connect() as other:
        run(connection, "SET search_path TO nowhere")
        pid = value(connection, "SELECT pg_backend_pid()")

        take(connection)

        state = other.execute("SELECT state FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone()
        assert state == ("idle",)
        assert value(connection, "SELECT current_setting('search_path')") == "nowhere"
        assert connection.get_autocommit()


def test_through_a_pooler_of_transactions_it_is_the_same_and_others_find_the_session_as_it_was(
    pg_server: PostgresServer, pg_database: PostgresDatabase
) -> None:
    if reason := why_not():
        pytest.skip(reason)
    execute(pg_database, "CREATE TABLE item (id serial PRIMARY KEY); CREATE VIEW seen AS SELECT id FROM item")
    with PgBouncer(pg_server, pool_size=1) as pooler:
        alias = pooler.django(pg_database.name)
        with connected(alias) as connection, connected(alias) as other:
            path = value(other, "SELECT current_setting('search_path')")

            assert take(connection) == fingerprint_of(pg_database)

            assert value(other, "SELECT current_setting('search_path')") == path
            assert take(other) == take(connection)


def test_the_settings_of_a_session_change_no_line(pg_database: PostgresDatabase) -> None:
    execute(
        pg_database,
        """
        CREATE SCHEMA extra; CREATE TYPE extra.mood AS ENUM ('fine');
        CREATE TABLE extra.item (
            id serial, at timestamptz DEFAULT '2020-01-01 00:00+00', mood extra.mood DEFAULT 'fine',
            span interval DEFAULT '1 day 02:00', raw bytea DEFAULT '\\x00ff', part float DEFAULT 0.1
        );
        """,
    )
    before = fingerprint_of(pg_database)
    with connected(pg_database.django) as connection:
        run(
            connection,
            """
            SET search_path TO extra, public; SET timezone TO 'Asia/Tokyo'; SET datestyle TO 'SQL, DMY';
            SET intervalstyle TO 'iso_8601'; SET bytea_output TO 'escape'; SET extra_float_digits TO -5;
            SET quote_all_identifiers TO on
            """,
        )
        assert before.differences(take(connection)) == ()


def test_a_role_that_may_read_the_records_alone_sees_what_the_superuser_sees(pg_database: PostgresDatabase) -> None:
    execute(
        pg_database,
        f"""
        {_RECORDS};
        INSERT INTO django_migrations VALUES (1, 'shop', '0001_initial', 'today');
        CREATE SCHEMA closed;
        CREATE TABLE closed.item (id serial PRIMARY KEY, total numeric CHECK (total > 0));
        CREATE INDEX ON closed.item ((total + 1));
        CREATE VIEW closed.seen AS SELECT * FROM closed.item;
        CREATE FUNCTION closed.one() RETURNS integer LANGUAGE sql AS 'SELECT 1';
        CREATE PUBLICATION news FOR TABLE closed.item;
        """,
    )
    with unprivileged(pg_database) as role:
        execute(pg_database, f"GRANT SELECT ON django_migrations TO {role}")
        before = fingerprint_of(pg_database)
        with connected({**pg_database.django, "USER": role}) as connection:
            assert value(connection, "SELECT has_schema_privilege('closed', 'usage')") is False
            assert before.differences(take(connection)) == ()


def test_records_that_a_role_may_not_read_are_an_error_that_leaves_its_transaction_alive(
    pg_database: PostgresDatabase,
) -> None:
    execute(pg_database, _RECORDS)
    with unprivileged(pg_database) as role, connected({**pg_database.django, "USER": role}) as connection:
        connection.set_autocommit(False)
        transaction = value(connection, "SELECT txid_current()")

        with pytest.raises(ProgrammingError, match="permission denied for table django_migrations"):
            take(connection)

        assert value(connection, "SELECT txid_current()") == transaction
        connection.rollback()


def test_the_records_are_those_that_the_connection_sees(pg_database: PostgresDatabase) -> None:
    for schema in ("one", "two"):
        execute(pg_database, f"CREATE SCHEMA {schema}; SET search_path TO {schema}; {_RECORDS}")
        execute(pg_database, f"INSERT INTO {schema}.django_migrations VALUES (1, '{schema}', '0001_initial', 'today')")
    options = {"options": "-c search_path=two"}

    with connected({**pg_database.django, "OPTIONS": options}) as connection:
        recorded = [line for line in take(connection).lines if line.startswith("migration ")]

    assert recorded == ["migration two.0001_initial"]
    assert not any(line.startswith("migration ") for line in fingerprint_of(pg_database).lines)


def test_an_index_whose_concurrent_making_failed_is_invalid(pg_database: PostgresDatabase) -> None:
    execute(pg_database, "CREATE TABLE item (id integer, name text); INSERT INTO item VALUES (1, 'tea'), (2, 'tea')")
    before = fingerprint_of(pg_database)

    with pytest.raises(psycopg.errors.UniqueViolation):
        execute(pg_database, "CREATE UNIQUE INDEX CONCURRENTLY once ON item (name)")

    assert before.differences(fingerprint_of(pg_database)) == (
        "+ table public.item index once: unique btree (name), invalid, not ready",
    )


def test_the_order_of_columns_counts_and_the_holes_between_them_do_not(pg_database: PostgresDatabase) -> None:
    execute(pg_database, "CREATE TABLE item (id integer, name text, total integer)")
    before = fingerprint_of(pg_database)

    execute(pg_database, "ALTER TABLE item ADD extra integer; ALTER TABLE item DROP extra")
    assert before.differences(fingerprint_of(pg_database)) == ()

    execute(pg_database, "ALTER TABLE item DROP name; ALTER TABLE item ADD name text")
    assert before.differences(fingerprint_of(pg_database)) == (
        "- table public.item columns: id, name, total",
        "+ table public.item columns: id, total, name",
    )


@pytest.mark.parametrize(
    "index",
    [
        'ON item (name COLLATE "POSIX")',
        "ON item (name text_pattern_ops)",
        "ON item (name DESC)",
        "ON item (name) INCLUDE (id)",
        "ON item (lower(name))",
        "ON item (name) WHERE id > 0",
        "ON item (name) WITH (fillfactor = 50)",
        "ON item (id, name)",
        "ON item USING hash (name)",
    ],
)
def test_an_index_that_is_another_one_by_the_same_name_is_a_difference(
    pg_database: PostgresDatabase, index: str
) -> None:
    execute(pg_database, "CREATE TABLE item (id integer, name text); CREATE INDEX by_name ON item (name)")
    before = fingerprint_of(pg_database)

    execute(pg_database, f"DROP INDEX by_name; CREATE INDEX by_name {index}")

    gone, new = before.differences(fingerprint_of(pg_database))
    assert gone == "- table public.item index by_name: btree (name)"
    assert new.startswith("+ table public.item index by_name: ")


def test_the_name_of_a_not_null_that_somebody_chose_counts(pg_database: PostgresDatabase) -> None:
    with pg_database.connect() as session:
        if session.info.server_version < 180000:
            pytest.skip("NOT NULL is a constraint with a name since PostgreSQL 18")
    execute(pg_database, "CREATE TABLE item (id integer CONSTRAINT needed NOT NULL, name text NOT NULL)")
    before = fingerprint_of(pg_database)

    execute(pg_database, "ALTER TABLE item RENAME CONSTRAINT item_name_not_null TO other_name_not_null")
    assert before.differences(fingerprint_of(pg_database)) == ()

    execute(pg_database, "ALTER TABLE item ALTER id DROP NOT NULL; ALTER TABLE item ALTER id SET NOT NULL")
    assert before.differences(fingerprint_of(pg_database)) == ("- table public.item constraint needed: NOT NULL id",)


def test_another_vendor_has_an_empty_fingerprint_that_says_so(tmp_path: Path) -> None:
    with connected(SqliteDatabase(tmp_path / "some.sqlite3").django) as connection:
        connection.vendor = "oracle"
        assert take(connection) == Fingerprint((), is_known=False)
