"""One transaction around everything: undo is ROLLBACK, lossless, without reverse SQL."""

import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from django.db import DatabaseError, Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import TransactionEnded, UndoFailed, is_rollback_by_sqlite
from smooth_migrations.lease.lost_session import Session, end_session
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.sending import send_together
from smooth_migrations.undo.prepared import prepare

__all__ = ["HeldTransaction", "Limits", "run_callbacks"]

# What it commits may be lost with a server that crashes within a second, with all that was committed after it and never
# without: the next commit that waits for the disk writes all of them (PostgreSQL manual, "Asynchronous Commit").
_DELAYED = "SET LOCAL synchronous_commit = off"
_FIRED = ("SET CONSTRAINTS ALL IMMEDIATE", "SET CONSTRAINTS ALL DEFERRED")
# Modes that make readers or writers of a table wait (PostgreSQL manual, 13.3.1).
_STRONG_LOCKS = """
    SELECT EXISTS (
        SELECT 1 FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted AND relation = ANY(%s::oid[])
          AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
    )
"""
# The same throughout a transaction, and different in the next one.
_BEGAN_AT = "SELECT transaction_timestamp()::text"
# A number that the transaction alone has.
_NUMBER = "SELECT pg_current_xact_id()"
# One that every change of the schema raises, and a rollback puts back (SQLite manual, pragma.html).
_SCHEMA_VERSION = "PRAGMA schema_version"
# PostgreSQL numbers a transaction at its first write, or row lock, and before any of ours was asked for its number.
_WRITES = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
# One that differs once another connection has committed (SQLite manual, pragma.html).
_DATA_VERSION = "PRAGMA data_version"
# A savepoint that goes with the transaction, where a statement ends it and begins another one (lang_savepoint.html).
_MARK = "smooth_held"
_WITH_TRANSACTION_TIMEOUT = 170000
# What is remembered of a transaction that begins, and what is set for it: a commit that was answered, and reported to
# others, must not be forgotten by a server that crashes, whatever the users' default is.
_BEGIN = """
    SELECT transaction_timestamp()::text, {tables}, pg_backend_pid(),
           CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END,
           {settings}, current_setting('application_name')
"""
# Tables that others use. The system's own have lower numbers (transam.h, FirstNormalObjectId). Where there are none
# pg_locks is not looked at, which takes a millisecond, and for which everybody's locks stand still.
_TABLES = r"""array(SELECT oid FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p', 'm')
                    AND relpersistence <> 't' AND relname NOT LIKE 'smooth\_migrations\_%%')"""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one statement may wait or run, in milliseconds; None leaves the server's own setting."""

    lock_timeout_ms: int | None = None
    statement_timeout_ms: int | None = None


def run_callbacks(callbacks: Iterable[Callable[[], None]]) -> None:
    """Run `on_commit` callbacks; one that fails undoes nothing of what is committed, and leaves its traceback."""
    for callback in callbacks:
        try:
            callback()
        except Exception:  # noqa: BLE001 - what is committed stays so; the log has the traceback
            traceback.print_exc()


class HeldTransaction:
    """A transaction that is opened once, checked after each migration and ended later, perhaps much later.

    Only `SET LOCAL` is used, so that nothing is left behind on a session that a pooler gives to somebody else.

    Args:
        connection: the target's connection; its alias must be free of an open block.
        limits: time-outs of each statement.
        application_name: shown in `pg_stat_activity`.
        sees_new: whether each statement is to see what others have committed before it. By the users' default that
            may be what they had committed before the first one, of which locks that are taken later change nothing.

    Attributes:
        loss: what the session was lost by, as it committed; it was committed all the same.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        *,
        limits: Limits,
        application_name: str | None = None,
        sees_new: bool = False,
    ) -> None:
        self._connection = connection
        self._limits = limits
        self._application_name = application_name
        self._sees_new = sees_new
        self._block: transaction.Atomic | None = None
        self._had_foreign_keys = False
        self._existing_tables: list[int] | None = None
        self._strong_since_s: float | None = None
        self._ended_s: float | None = None
        self._began_at = ""
        self._changes = 0
        self._identity: str | None = None
        self._session: Session | None = None
        self._seen: str | None = None
        self._was_ended = False

        self.loss: Error | None = None
        self._is_unsure = False

    @property
    def is_open(self) -> bool:
        """Whether the transaction has begun and has not ended."""
        return self._block is not None

    def has_written(self) -> bool:
        """Return whether a transaction is open that has something to commit. Only reads.

        One that has not may as well be committed without a lease: that is a ROLLBACK by another name.
        """
        if not self.is_open:
            return False
        connection = self._connection
        if connection.vendor == "sqlite":
            changes = int(connection.connection.total_changes)
            return changes != self._changes or self._read(_SCHEMA_VERSION) != self._identity
        return connection.vendor != "postgresql" or self._read(_WRITES) == "True"

    @property
    def locked_ms(self) -> float:
        """For how long strong locks on tables that existed before have been held, at the most."""
        if self._strong_since_s is None:
            return 0.0
        return ((self._ended_s or time.monotonic()) - self._strong_since_s) * 1000

    def begin(self) -> None:
        """Open the transaction. Takes no lock."""
        connection = self._connection
        if connection.vendor == "sqlite":
            # PRAGMA foreign_keys does nothing inside a transaction (SQLite manual, pragma.html), and Django's editor
            # refuses to remake a table while it is on. Its checks still run: check_constraints() after each migration.
            self._had_foreign_keys = connection.disable_constraint_checking()
            self._set_busy_timeout(self._limits.lock_timeout_ms)
        with passing("begin"):
            block = transaction.Atomic(connection.alias, savepoint=True, durable=False)
            block.__enter__()
        self._block = block
        self._strong_since_s = self._ended_s = None
        self._identity = self.loss = None
        self._was_ended = False
        if connection.vendor == "postgresql":
            self._set_local()
        elif connection.vendor == "sqlite":
            self._identity, self._seen = self._read(_SCHEMA_VERSION), self._read(_DATA_VERSION)
            self._changes = int(connection.connection.total_changes)
            connection.connection.execute(f"SAVEPOINT {_MARK}")

    def checkpoint(self, started_s: float, *, delays: bool = False) -> None:
        """Fire what is deferred to the commit, so that the next migration may alter the same tables.

        Without it PostgreSQL refuses ALTER TABLE with "pending trigger events" (SQLSTATE 55006) where a data migration
        touched a table with deferred foreign keys. A violation is raised here, at the migration that made it.

        Args:
            started_s: when the migration began, on the monotonic clock.
            delays: whether the commit, which comes next, need not wait for the disk.

        Raises:
            TransactionEnded: a statement of the migration has committed it or rolled it back.
        """
        if not self.is_open:
            return
        if self._connection.vendor == "sqlite":
            if not _is_marked(self._connection):
                raise TransactionEnded("the transaction that holds the call has been ended by a COMMIT or ROLLBACK")
            self._connection.connection.execute(f"SAVEPOINT {_MARK}")
        if self._connection.vendor != "postgresql":
            return
        with self._connection.cursor() as cursor:
            cursor.execute(_BEGAN_AT)
            if cursor.fetchone() != (self._began_at,):
                raise TransactionEnded("the transaction that holds the call has been ended by a COMMIT or ROLLBACK")
            send_together(self._connection, [*_FIRED, _DELAYED] if delays else _FIRED)
            if self._strong_since_s is None and self._existing_tables:
                cursor.execute(_STRONG_LOCKS, [self._existing_tables])
                row = cursor.fetchone()
                if row and row[0]:
                    self._strong_since_s = started_s

    def identify(self) -> None:
        """Remember what will tell afterwards whether the transaction was committed. Takes no lock; safe to repeat.

        PostgreSQL gives a transaction a number only when it is asked to, or when something is written.
        """
        if self.is_open and self._identity is None and self._connection.vendor == "postgresql":
            self._identity = self._read(_NUMBER)

    def was_committed(self) -> bool:
        """Return whether a statement of a migration has committed the transaction, which is not open any more."""
        if self._identity is None:
            return False
        if self._connection.vendor == "postgresql":
            return self._read("SELECT pg_xact_status(%s::text::xid8)", self._identity) == "committed"
        # Where another connection has committed, the number says nothing.
        is_alone = self._read(_DATA_VERSION) == self._seen
        return self._was_ended or (is_alone and self._read(_SCHEMA_VERSION) != self._identity)

    def commit(
        self, gid: str | None = None, was_committed: Callable[[], bool] = lambda: False
    ) -> list[Callable[[], None]]:
        """Commit, and return the `on_commit` callbacks, for `run_callbacks`.

        Within another transaction it is that one's commit that returns them.

        Args:
            gid: prepare the transaction under this name instead; whoever settles it decides its fate.
            was_committed: tells of a transaction whose session was lost before it answered.

        Raises:
            DatabaseError: the transaction is gone; nothing of it is in the database, unless there are `doubts`.
        """
        connection = self._connection
        if connection.atomic_blocks[-1:] != [self._block]:
            self.rollback()
            raise DatabaseError("a migration left a block of its own open; the transaction was rolled back")
        block = self._take_block()
        self._identity = None  # what we commit ourselves is no surprise
        if connection.vendor == "sqlite":
            # Once decided, a reader is waited for rather than obeyed.
            self._set_busy_timeout(60_000)
        callbacks = []
        if connection.atomic_blocks == [block]:
            callbacks = [entry[1] for entry in connection.run_on_commit]
            connection.run_on_commit = []
        lost, raw = connection.needs_rollback or connection.closed_in_transaction, connection.connection
        try:
            if gid is not None and not lost:
                self._prepare(block, gid)
            # What was prepared has left nothing to commit.
            with passing("commit_transaction"):
                block.__exit__(None, None, None)
        except Error as error:
            if gid is not None or not self._is_in(raw, was_committed):
                raise
            self.loss = error
        finally:
            self._restore()
        if lost:
            # Atomic rolls such a transaction back without a word.
            raise DatabaseError("the transaction was lost before it could be committed")
        return callbacks

    def doubts(self) -> list[UndoFailed]:
        """Return in words whether nobody knows what has become of it."""
        hint = "run it again when the server answers: it then has nothing to do, or does all of it"
        what = "nobody knows whether the last transaction was committed"
        return [UndoFailed(what, hint=hint)] if self._is_unsure else []

    def _is_in(self, raw: object, was_committed: Callable[[], bool]) -> bool:
        connection = self._connection
        if connection.in_atomic_block or (connection.connection is raw and connection.is_usable()):
            return False  # the server has answered, or will at the end of the block around this one
        if connection.connection is raw:
            connection.close()
        try:
            return was_committed()
        except Error:
            self._is_unsure = True
            return False

    def _prepare(self, block: transaction.Atomic, gid: str) -> None:
        try:
            prepare(self._connection, gid)
        except BaseException as error:
            # It opens a lost connection again, and a server that is away is not the news here.
            with suppress(Error), passing("rollback_transaction"):
                block.__exit__(type(error), error, error.__traceback__)
            raise

    def rollback(self, error: BaseException | None = None) -> None:
        """Roll back; a connection that does not answer is closed, which has the same effect. Safe to repeat.

        PostgreSQL learns of that when the statement at work there has ended, so the session is ended as well.

        Args:
            error: why.
        """
        if self._block is None:
            return
        connection, block, raw = self._connection, self._take_block(), self._connection.connection
        if connection.vendor == "sqlite" and connection.connection is not None:
            # Ended by a statement, whatever became of it, unless by SQLite itself.
            self._was_ended = not (_is_marked(connection) or (error and is_rollback_by_sqlite(error)))
        cause = DatabaseError("rolled back")
        try:
            # A schema editor whose deferred SQL fails leaves its block open (BaseDatabaseSchemaEditor.__exit__), and
            # our end would then be that of a savepoint.
            with passing("rollback_transaction"):
                while connection.atomic_blocks and connection.atomic_blocks[-1] is not block:
                    connection.atomic_blocks[-1].__exit__(DatabaseError, cause, None)
                block.__exit__(DatabaseError, cause, None)
        finally:
            self._restore()
        if self._session is not None and connection.connection is not raw and not connection.in_atomic_block:
            with suppress(Error):
                end_session(connection, self._session)

    def _read(self, sql: str, *params: str) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            return str((cursor.fetchone() or ("",))[0])

    def _take_block(self) -> transaction.Atomic:
        if self._block is None:
            raise DatabaseError("no transaction is open")
        block, self._block = self._block, None
        self._ended_s = time.monotonic()
        return block

    def _restore(self) -> None:
        connection = self._connection
        if connection.vendor != "sqlite" or connection.connection is None:
            return
        if self._had_foreign_keys:
            connection.enable_constraint_checking()
        configured_s = connection.settings_dict["OPTIONS"].get("timeout", 5.0)
        self._set_busy_timeout(int(float(configured_s) * 1000))

    def _set_busy_timeout(self, timeout_ms: int | None) -> None:
        if timeout_ms is not None:
            with self._connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {int(timeout_ms)}")

    def _set_local(self) -> None:
        limits = self._limits
        has_limit = getattr(self._connection, "pg_version", 0) >= _WITH_TRANSACTION_TIMEOUT
        # What is held waits for others, and who holds it bounds that; the server's limits are for what is forgotten.
        settings: dict[str, str | int | None] = {
            "application_name": self._application_name,
            "idle_in_transaction_session_timeout": 0,
            "lock_timeout": limits.lock_timeout_ms,
            "statement_timeout": limits.statement_timeout_ms,
            "transaction_timeout": 0 if has_limit else None,
        }
        given = [(name, str(value)) for name, value in settings.items() if value is not None]
        with self._connection.cursor() as cursor:
            if self._sees_new:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
            calls = ", ".join(["set_config(%s, %s, true)"] * len(given))
            # What a call has made itself, and committed, nobody has used yet.
            tables = _TABLES if self._existing_tables is None else "NULL"
            cursor.execute(_BEGIN.format(tables=tables, settings=calls), [text for pair in given for text in pair])
            self._began_at, found, pid, *_set, name = cursor.fetchone() or ("", None, 0, "")
            self._session = Session(pid, name)
            if found is not None:
                self._existing_tables = found


def _is_marked(connection: BaseDatabaseWrapper) -> bool:
    """Return whether SQLite is in the transaction that was marked, or its connection was closed; the mark is gone."""
    import sqlite3  # noqa: PLC0415 - no server needs it

    try:
        connection.connection.execute(f"RELEASE {_MARK}")
    except sqlite3.ProgrammingError:
        return True
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode != sqlite3.SQLITE_ERROR
    return True
