"""What is asked beside a migration's own statements: where it fails, the transaction lives on."""

from collections.abc import Callable

import psycopg
import pytest
from django.db import DatabaseError, OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import is_lock_failure
from smooth_migrations.replay.aside import ask_aside
from tests.support.django_connections import connected, in_transaction
from tests.support.postgres_database import PostgresDatabase


def _value(connection: BaseDatabaseWrapper, query: str) -> Callable[[], object]:
    def ask() -> object:
        with connection.cursor() as cursor:
            cursor.execute(query)
            (value,) = cursor.fetchone() or (None,)
        return value

    return ask


def test_a_statement_that_fails_is_told_and_the_transaction_lives_on(pg_database: PostgresDatabase) -> None:
    failures: list[DatabaseError] = []
    with connected(pg_database.django) as connection:
        with in_transaction(connection):
            with connection.cursor() as cursor:
                cursor.execute("CREATE TABLE kite (id integer)")
            assert ask_aside(connection, _value(connection, "SELECT 1 / 0"), failures.append) is None
            assert ask_aside(connection, _value(connection, "SELECT 7"), failures.append) == 7
        assert _value(connection, "SELECT count(*) FROM kite")() == 0
    assert len(failures) == 1


@pytest.mark.parametrize(
    ("own", "while_asked"), [("0", "100ms"), ("5s", "100ms"), ("40ms", "40ms")], ids=["none", "longer", "shorter"]
)
def test_locks_are_waited_for_briefly(pg_database: PostgresDatabase, own: str, while_asked: str) -> None:
    failures: list[DatabaseError] = []
    with pg_database.connect() as session:
        session.execute("CREATE TABLE kite (id integer)")
    with psycopg.connect(pg_database.dsn) as other, connected(pg_database.django) as connection:
        other.execute("LOCK TABLE kite IN ACCESS EXCLUSIVE MODE")
        with in_transaction(connection):
            with connection.cursor() as cursor:
                cursor.execute("SELECT set_config('lock_timeout', %s, true)", [own])
            limit = _value(connection, "SHOW lock_timeout")
            assert ask_aside(connection, limit, failures.append) == while_asked
            assert ask_aside(connection, _value(connection, "SELECT count(*) FROM kite"), failures.append) is None
            assert limit() == own
        other.rollback()
    assert [is_lock_failure(error) for error in failures] == [True]


def test_a_lost_connection_is_an_error(pg_database: PostgresDatabase) -> None:
    failures: list[DatabaseError] = []
    query = "SELECT pg_terminate_backend(pg_backend_pid())"
    with connected(pg_database.django) as connection:
        connection.set_autocommit(False)
        with pytest.raises(OperationalError):
            ask_aside(connection, _value(connection, query), failures.append)
    assert failures == []
