"""What only recording and replaying ask of a database: where it gives no answer, the migrations stand all the same."""

from collections.abc import Callable
from typing import Final, TypeVar

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.fingerprint.postgresql import undone, waiting_at_most

__all__ = ["BRIEFLY_MS", "ask_aside", "is_lost"]

_Answer = TypeVar("_Answer")

BRIEFLY_MS: Final = 100
"""For how long others' locks are waited for, while whoever uses the database may wait for those of the migrations."""


def ask_aside(
    connection: BaseDatabaseWrapper, ask: Callable[[], _Answer], failed: Callable[[DatabaseError], None]
) -> _Answer | None:
    """Ask something within a savepoint, which is rolled back: the transaction lives on where it fails.

    Args:
        connection: of a database of PostgreSQL, in a transaction.
        ask: only reads.
        failed: told why.

    Returns:
        The answer; None where it failed.

    Raises:
        DatabaseError: the connection is lost.
    """
    try:
        with connection.cursor() as cursor, undone(connection, cursor):
            cursor.execute(f"SELECT {waiting_at_most(BRIEFLY_MS)}")
            return ask()
    except DatabaseError as error:
        if is_lost(connection):
            raise
        failed(error)
        return None


def is_lost(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection has been closed, perhaps by its server. Asks nothing."""
    return connection.connection is None or bool(connection.connection.closed)
