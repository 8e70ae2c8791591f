"""Django's connections to one database, as many as a test wants and in any of its threads, without a project."""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

import django
from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import ConnectionHandler

from tests.support.histories import Database, SqliteDatabase
from tests.support.mariadb_database import MariadbDatabase

__all__ = ["ask", "connected", "in_transaction"]


@contextmanager
def connected(database: Mapping[str, Any]) -> Iterator[BaseDatabaseWrapper]:
    """Make a connection that is nobody else's, for a value of `DATABASES`; close it with the block."""
    _set_up()
    connection = ConnectionHandler({"default": dict(database)})["default"]
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def in_transaction(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Commit the block, or roll it back if it raises; `atomic` serves the connections of a project alone."""
    connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    finally:
        connection.set_autocommit(True)


def ask(database: Database, query: str) -> list[tuple[Any, ...]]:
    """Return a query's rows as another session, which knows nothing of Django, sees them."""
    if isinstance(database, SqliteDatabase):
        with closing(sqlite3.connect(database.path)) as session:
            return session.execute(query).fetchall()
    if isinstance(database, MariadbDatabase):
        with database.connect() as mariadb, mariadb.cursor() as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())
    with database.connect() as postgres:
        return postgres.execute(query.encode()).fetchall()


@cache
def _set_up() -> None:
    if not settings.configured:
        settings.configure()
    # Django warns of queries before that.
    django.setup()
