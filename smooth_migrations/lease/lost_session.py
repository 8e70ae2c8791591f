"""The end of a session of PostgreSQL whose connection was lost: the server does not know, and may go on in it."""

from typing import Final, NamedTuple

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing

__all__ = ["Session", "end_session"]

# By its name as well: behind a pooler of transactions the process may be at another client's work by now.
_END: Final = """
    SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
    WHERE pid = %s AND application_name = %s AND datname = current_database() AND pid <> pg_backend_pid()
"""


class Session(NamedTuple):
    """What tells a session from others on its server.

    Args:
        pid: of its process there.
        name: its `application_name`.
    """

    pid: int
    name: str


def end_session(connection: BaseDatabaseWrapper, session: Session) -> None:
    """End a session, if it is not this one and there still: a statement or its COMMIT may be at work there. Idempotent.

    Args:
        connection: in autocommit. The role that has logged in is the session's.
        session: which.

    Raises:
        DatabaseError: the server cannot be asked, or does not end that session within 20 s.
    """
    # The server tells of what has ended by itself, after it was seen, as of what does not end: it is looked for again,
    # in a transaction of its own, which sees the sessions of one moment.
    for _attempt in range(2):
        with passing("end_sessions"), transaction.atomic(connection.alias), connection.cursor() as cursor:
            # OPTIONS["assume_role"] is another.
            cursor.execute("SET LOCAL ROLE NONE")
            cursor.execute(_END, session)
            if (False,) not in cursor.fetchall():
                return
    raise DatabaseError("a session whose connection was lost is still at work on the server")
