"""The session that is at work under a lease, and the end of one that its owner has left at work.

MySQL and MariaDB notice that a client is gone when the statement at work has ended: an ALTER TABLE of a process that
was killed goes on, and would change the schema after somebody else has settled what it left. So the session at work
holds a user lock, which the server gives back at that session's end alone (MariaDB documentation, GET_LOCK). Whoever
has the lease next ends the session that still holds it, and looks at nothing before it has ended. So does a connection
that was lost and is opened again, with its own earlier session.

Such locks are the server's, not the database's, and are named without regard to case: a name holds the database's hash.
A proxy between us and the server must give each connection a session of its own.

PostgreSQL keeps the next owner out by the lock on the lease's row for as long as such a transaction lasts, and its
sessions are known by their names; a file of SQLite is nobody's who is gone.
"""

from contextlib import suppress

from django.db import DatabaseError, Error, NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.lease.errors import LeaseHeld, SessionLeft
from smooth_migrations.lease.lease import Lease, holder_at_work
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.owner import Owner

__all__ = ["SessionLock", "end_session_left"]

# How long a session that was told to end may take; what it was about is rolled back first.
_PATIENCE_S = 10
# As the server itself tells databases apart.
_NAME = "SELECT CONCAT('smooth:', SHA1(IF(@@lower_case_table_names = 0, DATABASE(), LOWER(DATABASE()))))"


class SessionLock:
    """The lock of the session at work under a lease, on servers that need one; elsewhere it does nothing.

    Args:
        lease: whose connection is at work.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._name: str | None = None

    def take(self) -> None:
        """Take the lock for the lease's connection, however often that is opened again, until `release`.

        Ends the session that holds it, and waits until it has ended. Outside a transaction.

        Raises:
            SessionLeft: that session cannot be ended.
            LeaseLost: the lease is another's by now; nobody's session was ended.
            DatabaseError: the server cannot be asked.
        """
        if self._lease.connection.vendor != "mysql":
            return
        self._name = _name_in(self._lease.connection)
        self._take()
        connection_created.connect(self._take_again)

    def release(self) -> None:
        """Give the lock back, after what was at work has ended. Repeating it does nothing.

        A server that cannot be asked is not an error: the lock goes with its session, which the next owner ends.
        """
        if self._name is None:
            return
        with suppress(Error, SmoothMigrationsError):
            _ask(self._lease.connection, "SELECT RELEASE_LOCK(%s)", self._name)
        connection_created.disconnect(self._take_again)
        self._name = None

    def _take_again(self, connection: BaseDatabaseWrapper, **_kwargs: object) -> None:
        if connection is not self._lease.connection:
            return
        try:
            self._take()
        except BaseException:
            # Nothing is to be done in a session that does not have it.
            connection.close()
            raise

    def _take(self) -> None:
        connection, name = self._lease.connection, self._name
        with suppress(NotSupportedError):  # in a Galera cluster, which has no such locks
            if _ask(connection, "SELECT GET_LOCK(%s, 0)", name):
                return
            self._lease.renew()
            session, refusal = _ask(connection, "SELECT IS_USED_LOCK(%s)", name), None
            if session is not None:
                refusal = _end(connection, session)
            if not _ask(connection, f"SELECT GET_LOCK(%s, {0 if refusal else _PATIENCE_S})", name):
                raise SessionLeft(connection.alias, session) from refusal


def end_session_left(connection: BaseDatabaseWrapper) -> None:
    """End the session that a dead owner of a database's lease has left at work. Idempotent.

    Args:
        connection: the target's, in autocommit.

    Raises:
        SessionLeft: it cannot be ended.
    """
    if connection.vendor != "mysql" or holder_at_work(connection) is not None:
        return
    if _ask(connection, "SELECT IS_USED_LOCK(%s)", _name_in(connection)) is None:
        return
    # Somebody who has begun meanwhile does that, and is at work.
    with suppress(LeaseHeld):
        lease = Lease.acquire(connection, Owner.here(None))
        lock = SessionLock(lease)
        try:
            lock.take()
        finally:
            lock.release()
            lease.release()


def _end(connection: BaseDatabaseWrapper, session: int) -> DatabaseError | None:
    """End a session of the same user's; return why it may not be ended, or that it is gone."""
    try:
        with passing("end_sessions"), connection.cursor() as cursor:
            cursor.execute(f"KILL {session}")
    except DatabaseError as error:
        return error
    return None


def _name_in(connection: BaseDatabaseWrapper) -> str:
    with connection.cursor() as cursor:
        cursor.execute(_NAME)
        (name,) = cursor.fetchone() or ("",)
    return str(name)


def _ask(connection: BaseDatabaseWrapper, sql: str, name: str | None) -> int | None:
    with connection.cursor() as cursor:
        cursor.execute(sql, [name])
        (answer,) = cursor.fetchone() or (None,)
    return None if answer is None else int(answer)
