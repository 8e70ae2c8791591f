"""What can go wrong here, and what a driver's error says about it.

Nothing here parses a message: servers speak many languages. PostgreSQL errors are told apart by SQLSTATE
(PostgreSQL manual, appendix A), SQLite's by `sqlite_errorcode` (SQLite manual, rescode.html), MySQL's by their number
(MariaDB's documentation, "MariaDB Error Code Reference").
"""

import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from django.db import Error, IntegrityError
from django.db.transaction import Atomic, TransactionManagementError

if TYPE_CHECKING:
    from smooth_migrations.protocol.failures import ErrorInfo

__all__ = [
    "FilesGone",
    "Interrupted",
    "Irreversible",
    "NotPreparable",
    "OtherAliasRefused",
    "OtherDatabase",
    "OwnUndoFailed",
    "SchemaDiffers",
    "SmoothMigrationsError",
    "TransactionEnded",
    "UndoAlsoFailed",
    "UndoFailed",
    "describe",
    "failed_twice",
    "is_caused_by_holding",
    "is_lock_failure",
    "is_rollback_by_sqlite",
    "is_unusable",
    "joined",
    "not_taken_back",
    "sqlstate_of",
    "words_of",
]

_LOCK_SQLSTATES = frozenset(
    {
        "55P03",  # lock_not_available: lock_timeout
        "40P01",  # deadlock_detected
        "40001",  # serialization_failure
    }
)
_HOLDING_SQLSTATES = frozenset(
    {
        "25001",  # active_sql_transaction
        "55006",  # object_in_use
        "55P04",  # unsafe_new_enum_value_usage
    }
)
_OUT_OF_MEMORY = "53200"  # out_of_memory, of the memory for locks too
_LOCK_SQLITE = frozenset(
    {
        5,  # SQLITE_BUSY
        6,  # SQLITE_LOCKED
    }
)
# Class 42, syntax error or access rule violation; read_only_sql_transaction; invalid_schema_name.
_UNUSABLE_SQLSTATES = ("42", "25006", "3F000")
_UNUSABLE_SQLITE = frozenset(
    {
        1,  # SQLITE_ERROR: no such column, for one
        8,  # SQLITE_READONLY
    }
)
# After these SQLite may end the whole transaction by a rollback of its own (SQLite manual, lang_transaction.html).
_ROLLBACK_SQLITE = frozenset(
    {
        5,  # SQLITE_BUSY
        7,  # SQLITE_NOMEM
        9,  # SQLITE_INTERRUPT
        10,  # SQLITE_IOERR
        13,  # SQLITE_FULL
    }
)
_LOCK_MYSQL = frozenset(
    {
        1020,  # ER_CHECKREAD: a row changed since this transaction's snapshot (MariaDB, innodb_snapshot_isolation)
        1205,  # ER_LOCK_WAIT_TIMEOUT: of a row lock or a metadata lock
        1213,  # ER_LOCK_DEADLOCK
        1412,  # ER_TABLE_DEF_CHANGED since this transaction's snapshot
        3572,  # ER_LOCK_NOWAIT (MySQL 8)
    }
)
# mysqlclient, and PyMySQL in its place; both give the number first (PEP 249 leaves it to the driver).
_MYSQL_DRIVERS = ("MySQLdb", "pymysql")
_PRIMARY_SQLITE_CODE = 0xFF
# A migration that puts its data into an error must not keep everybody's locks while megabytes of it are masked and
# written, several times over.
_LONGEST_MESSAGE = 10_000
_LONGEST_TRACEBACK = 50_000


class SmoothMigrationsError(Exception):
    """Root of this package's errors.

    Args:
        message: in the user's words.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class OtherAliasRefused(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """A migration reached another database than the one it was run for."""


class OtherDatabase(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """The settings here name another database than the coordinator means."""


class NotPreparable(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """A transaction must not be prepared, since what belongs to it is in another one; a coordinator knows the name."""


class Irreversible(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """What was asked for could not be taken back if something failed: it did not run."""


class TransactionEnded(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """A migration committed or rolled back the transaction that holds the call."""


class UndoFailed(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """A committed step could not be taken back."""


class FilesGone(UndoFailed):
    """The files of what is to be taken back are gone, or were changed since; a coordinator knows it by this name."""


class OwnUndoFailed(UndoFailed):
    """What a migration registered with `on_rollback` failed; a coordinator knows it by this name."""


class SchemaDiffers(UndoFailed):
    """Everything was taken back, and the schema is not what it was; a coordinator knows it by this name."""


class UndoAlsoFailed(BaseExceptionGroup[BaseException]):
    """A call failed, which is the first of these errors, and then its undo, which are the others."""


class _UndoAlsoFailedOrdinarily(UndoAlsoFailed, ExceptionGroup[Exception]):
    """The same where all of them are ordinary, so that `except Exception` catches it."""


def failed_twice(cause: BaseException, failures: Sequence[BaseException]) -> UndoAlsoFailed:
    """Return what a call raises that failed and could not be undone."""
    errors = [cause, *failures]
    message = "the migration failed, and so did its undo"
    ordinary = [error for error in errors if isinstance(error, Exception)]
    if len(ordinary) == len(errors):
        return _UndoAlsoFailedOrdinarily(message, ordinary)
    return UndoAlsoFailed(message, errors)


def not_taken_back(step: object, failure: Exception) -> UndoFailed:
    """Return what an undo raises that has come to a step which does not go back."""
    return UndoFailed(
        f"{step} could not be taken back: {failure}",
        hint="mend what is in its way, or its reverse code, and run this again: it goes on from there",
    )


def ended_itself(step: object) -> UndoFailed:
    """Return what an undo raises that has to do with a migration whose own COMMIT made a part of it permanent."""
    return UndoFailed(
        f"{step} has ended the transaction itself; what it did before that may stay",
        hint="set atomic = False on a migration that commits",
    )


def joined(failures: Sequence[BaseException], own: Sequence[BaseException]) -> UndoFailed:
    """Return what an undo raises that failed, and by itself: one error for all of them.

    Args:
        failures: of the database's undo.
        own: of what migrations registered themselves.
    """
    if not own and isinstance(failures[0], UndoFailed):
        return failures[0]
    every = [*failures, *own]
    text = "; ".join(f"{type(failure).__name__}: {failure}" for failure in every)
    error = OwnUndoFailed(text) if own else UndoFailed(text)
    error.__cause__ = every[0] if len(every) == 1 else BaseExceptionGroup("the undo failed", every)
    return error


class Afresh(SmoothMigrationsError):  # noqa: N818 - named by what follows
    """What was done so far goes back at once, and the call does it again in another way."""


class Interrupted(KeyboardInterrupt):
    """A signal or the coordinator ended the call.

    A KeyboardInterrupt, because psycopg cancels the running statement on the server for that one alone
    (`psycopg.Connection.wait`); without it the session would go on waiting for its lock.
    """


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of a driver's error, wherever in the chain of causes it stands."""
    for link in _chain(error):
        state = getattr(link, "sqlstate", None) or getattr(link, "pgcode", None)
        if isinstance(state, str):
            return state
    return None


def _sqlite_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY_SQLITE_CODE if isinstance(code, int) else None


def is_rollback_by_sqlite(error: BaseException) -> bool:
    """Return whether SQLite may have rolled the whole transaction back by itself because of this error."""
    return any(_sqlite_code(link) in _ROLLBACK_SQLITE for link in _chain(error))


def is_lock_failure(error: BaseException) -> bool:
    """Return whether trying the whole transaction again may help: lock time-out, deadlock, serialization failure."""
    for link in _chain(error):
        if sqlstate_of(link) in _LOCK_SQLSTATES:
            return True
        if _sqlite_code(link) in _LOCK_SQLITE:
            return True
        if type(link).__module__.startswith(_MYSQL_DRIVERS) and link.args and link.args[0] in _LOCK_MYSQL:
            return True
    return False


def is_unusable(error: BaseException) -> bool:
    """Return whether the product's own tables are not to be made, read or written here, however often it is tried.

    For lack of a privilege, in a database that is read only, or because another program has tables of these names.
    """
    state = sqlstate_of(error) or ""
    is_sqlites = any(_sqlite_code(link) in _UNUSABLE_SQLITE for link in _chain(error))
    return is_sqlites or state.startswith(_UNUSABLE_SQLSTATES)


def is_caused_by_holding(error: BaseException, *, or_by_locks: bool = False) -> bool:
    """Return whether a call may succeed when each migration has a transaction of its own, as in stock `migrate`.

    A value that ALTER TYPE … ADD VALUE made cannot be used in the same transaction (55P04), triggers that wait for its
    end keep tables from being altered (55006), some statements run in none (25001), a durable block cannot be nested.

    Args:
        error: why it failed.
        or_by_locks: whether that also goes for a server whose table of locks is full.
    """
    states = {*_HOLDING_SQLSTATES, *([_OUT_OF_MEMORY] if or_by_locks else ())}
    for link in _chain(error):
        if sqlstate_of(link) in states:
            return True
        frames = [frame.f_code for frame, _line in traceback.walk_tb(link.__traceback__)]
        if isinstance(link, RuntimeError) and frames and frames[-1] is Atomic.__enter__.__code__:
            return True
    return False


def describe(error: BaseException, *, migration: str | None = None) -> "ErrorInfo":
    """Return what users and logs are told of an error.

    A call whose undo failed too gives its own error, with those of the undo as its causes.
    """
    from smooth_migrations.hidden import first_of  # noqa: PLC0415 - most calls describe none
    from smooth_migrations.origin import origin_of  # noqa: PLC0415 - the same
    from smooth_migrations.protocol.failures import ErrorInfo  # noqa: PLC0415 - the same

    causes: tuple[ErrorInfo, ...] = ()
    detail = _detail(error)
    trace = _without("".join(traceback.format_exception(error)), detail)
    if isinstance(error, UndoAlsoFailed):
        first, *others = error.exceptions
        causes = tuple(describe(other) for other in others)
        error = first
    error = first_of(error)
    origin = origin_of(error)
    return ErrorInfo(
        type=type(error).__name__,
        message=_shortened(_without(words_of(error), detail).strip(), _LONGEST_MESSAGE) or type(error).__name__,
        sqlstate=sqlstate_of(error),
        migration=migration,
        hint=getattr(error, "hint", None),
        traceback=_shortened(trace, _LONGEST_TRACEBACK),
        causes=causes,
        detail=None if detail is None else _shortened(detail, _LONGEST_MESSAGE),
        operation=_shortened(origin.operation, _LONGEST_MESSAGE) if origin else None,
        place=origin.place if origin else None,
    )


def words_of(error: BaseException) -> str:
    """Return what an error says, also one that fails to say it, with what it hides."""
    from smooth_migrations.hidden import first_of  # noqa: PLC0415 - most calls tell of none

    error = first_of(error)
    # What Django says of a broken transaction hides what broke it, where code has gone on after that.
    hidden = error.__cause__ or error.__context__
    if isinstance(error, TransactionManagementError | IntegrityError) and isinstance(hidden, Error):
        return f"{error} ({type(hidden).__name__}: {hidden})"
    return str(traceback.TracebackException(type(error), error, None, compact=True))


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} … ({len(text) - 2 * half} characters left out) … {text[-half:]}"


def _detail(error: BaseException) -> str | None:
    """Return what PostgreSQL adds to an error (PostgreSQL manual, 53.8), such as the key or the row in the way."""
    for link in _chain(error):
        detail = getattr(getattr(link, "diag", None), "message_detail", None)
        if isinstance(detail, str):
            return detail
    return None


def _without(text: str, detail: str | None) -> str:
    # The label before it is in the server's language.
    ends = tuple(line for line in (detail or "").splitlines() if line)
    return "\n".join(line for line in text.split("\n") if not line.endswith(ends)) if ends else text
