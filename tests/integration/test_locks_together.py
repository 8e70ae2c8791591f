"""Strong locks are taken all together or not at all, and nobody else's session is ended for them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import sqlstate_of
from smooth_migrations.locks.modes import Locks, Mode
from smooth_migrations.locks.taking import take_together
from tests.support.django_connections import ask, connected, in_transaction
from tests.support.leases import until
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase

_ODD = '"a""b$smooth$"'
_BOTH = {"item": Mode.ACCESS_EXCLUSIVE, "kind": Mode.SHARE_ROW_EXCLUSIVE}
_HELD = """
    SELECT relname, mode FROM pg_locks JOIN pg_class c ON c.oid = relation
    WHERE relnamespace = 'public'::regnamespace AND mode <> 'AccessShareLock' AND granted ORDER BY 1, 2
"""
_WAITING = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{}'::regclass"
_SINCE = "SELECT waitstart FROM pg_locks WHERE NOT granted"
_TAKEN = [("item", "AccessExclusiveLock"), ("kind", "ShareRowExclusiveLock")]


@pytest.fixture
def database(pg_databases: NewDatabases) -> PostgresDatabase:
    database = pg_databases.new()
    assert isinstance(database, PostgresDatabase)
    with database.connect() as session:
        session.execute(
            f"CREATE TABLE item (id int); CREATE TABLE kind (id int); CREATE TABLE {_ODD} (id int)".encode()
        )
    return database


@pytest.fixture
def connection(database: PostgresDatabase) -> Iterator[BaseDatabaseWrapper]:
    with connected(database.django) as connection:
        yield connection


@pytest.fixture
def client(database: PostgresDatabase) -> Iterator[psycopg.Connection]:
    with database.connect() as client:
        yield client


def _taken(connection: BaseDatabaseWrapper, database: PostgresDatabase, wanted: Locks) -> list[tuple[object, ...]]:
    """Take locks, and return what others see of them."""
    with in_transaction(connection):
        take_together(connection, wanted)
        return ask(database, _HELD)


def test_who_waits_the_other_way_round_goes_first(
    connection: BaseDatabaseWrapper, database: PostgresDatabase, client: psycopg.Connection
) -> None:
    client.execute("BEGIN; INSERT INTO kind VALUES (1)")

    def go_on() -> None:
        until(lambda: ask(database, _WAITING.format("kind")) == [(1,)])
        client.execute("INSERT INTO item VALUES (1)")
        client.execute("COMMIT")

    with ThreadPoolExecutor() as pool:
        gone_on = pool.submit(go_on)
        assert _taken(connection, database, _BOTH) == _TAKEN
        gone_on.result()
    assert ask(database, "SELECT * FROM item, kind") == [(1, 1)]


def test_without_a_limit_one_waits_in_the_queue(
    connection: BaseDatabaseWrapper, database: PostgresDatabase, client: psycopg.Connection
) -> None:
    client.execute("BEGIN; INSERT INTO item VALUES (1)")

    def looked_at() -> set[str]:
        until(lambda: ask(database, _WAITING.format("item")) == [(1,)])
        since = {str(ask(database, _SINCE)) for _look in range(20)}
        client.execute("COMMIT")
        return since

    with ThreadPoolExecutor() as pool:
        looked = pool.submit(looked_at)
        assert _taken(connection, database, _BOTH) == _TAKEN
        assert len(looked.result()) == 1


def test_nothing_is_held_where_one_is_not_to_be_had(
    connection: BaseDatabaseWrapper, database: PostgresDatabase, client: psycopg.Connection
) -> None:
    client.execute("BEGIN; INSERT INTO kind VALUES (1)")
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '50ms'")

    with pytest.raises(OperationalError) as raised:
        _taken(connection, database, _BOTH)

    assert sqlstate_of(raised.value) == "55P03"
    assert ask(database, _HELD) == [("kind", "RowExclusiveLock")]
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("50ms",)


def test_the_limit_of_the_session_is_as_it_was(connection: BaseDatabaseWrapper, database: PostgresDatabase) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET lock_timeout = '7s'")

    assert _taken(connection, database, _BOTH) == _TAKEN

    with in_transaction(connection), connection.cursor() as cursor:
        take_together(connection, _BOTH)
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("7s",)


def test_what_is_not_there_or_not_ours_to_lock_is_left_out(
    connection: BaseDatabaseWrapper, database: PostgresDatabase
) -> None:
    wanted = dict.fromkeys(("gone", _ODD, "item", "kind"), Mode.SHARE)
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE ROLE {database.name}; GRANT UPDATE ON {_ODD}, item TO {database.name}; SET ROLE {database.name}"
        )
    try:
        assert _taken(connection, database, wanted) == [('a"b$smooth$', "ShareLock"), ("item", "ShareLock")]
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"RESET ROLE; DROP OWNED BY {database.name}; DROP ROLE {database.name}")
