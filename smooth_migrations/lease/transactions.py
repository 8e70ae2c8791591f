"""The end of a transaction of PostgreSQL whose session was lost."""

from typing import Final

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing

__all__ = ["end_transaction"]

# A transaction holds the lock of its own number until it has ended (PostgreSQL manual, pg_locks); nobody has that of
# one which was prepared.
_END: Final = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_locks
    WHERE locktype = 'transactionid' AND transactionid = %s::text::xid8::xid AND mode = 'ExclusiveLock' AND granted
      AND pid <> pg_backend_pid()
"""


def end_transaction(connection: BaseDatabaseWrapper, number: str) -> None:
    """End the session that has a transaction open, if one has: its COMMIT may still be on the way. Idempotent.

    Args:
        connection: in autocommit. The role that has logged in is the session's.
        number: the transaction's, from 1.

    Raises:
        DatabaseError: the server cannot be asked, or does not end that session within 10 s.
    """
    with passing("end_sessions"), transaction.atomic(connection.alias), connection.cursor() as cursor:
        # OPTIONS["assume_role"] is another.
        cursor.execute("SET LOCAL ROLE NONE")
        cursor.execute(_END, [number])
        if not all(has_ended for (has_ended,) in cursor.fetchall() if has_ended is not None):
            raise DatabaseError("a session that was lost as it committed is still at work on the server")
