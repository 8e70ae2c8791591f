"""What a call sets for its session as a whole, and gives back."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.undo.transaction import Limits

__all__ = ["commit_each", "limited", "limited_transaction", "make_ready", "named"]


def commit_each(connection: BaseDatabaseWrapper) -> None:
    """Let each statement commit by itself: with AUTOCOMMIT off in its settings nobody would. Safe to repeat."""
    if not connection.get_autocommit():
        connection.rollback()
        connection.set_autocommit(True)


def make_ready(connection: BaseDatabaseWrapper) -> None:
    """Make a connection ready for a call: it commits each statement, and has what its backend keeps in every database.

    SQLite's makes it before a transaction begins, as `migrate` does: that of SpatiaLite would end one. It stays.
    """
    if not connection.in_atomic_block:
        commit_each(connection)
        if connection.vendor == "sqlite":
            connection.prepare_database()


@contextmanager
def named(connection: BaseDatabaseWrapper, name: str | None) -> Iterator[None]:
    """Give a PostgreSQL session this `application_name`, also outside a transaction.

    A pooler of transactions takes the name along with its client (PgBouncer, "track_extra_parameters").

    Args:
        connection: in autocommit.
        name: None leaves it what it is.
    """
    if connection.vendor != "postgresql" or not name or connection.in_atomic_block:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('application_name'), set_config('application_name', %s, false)", [name])
        (before, _after) = cursor.fetchone() or ("", name)
    raw = connection.connection
    try:
        yield
    finally:
        # A session that was lost meanwhile has taken its name along.
        if connection.connection is raw and not connection.in_atomic_block:
            with suppress(Error), connection.cursor() as cursor:
                cursor.execute("SELECT set_config('application_name', %s, false)", [before])


@contextmanager
def limited(connection: BaseDatabaseWrapper, limits: Limits) -> Iterator[None]:
    """Set the time-outs of a session of MySQL or MariaDB, which has none for a transaction alone, for what runs within.

    Both kinds of lock have one: `lock_wait_timeout` for a table's definition, `innodb_lock_wait_timeout` for rows. They
    are whole seconds, at least one.

    Args:
        connection: the target's.
        limits: None of them leaves the server's own.
    """
    wanted = _mysql(connection, limits) if connection.vendor == "mysql" else {}
    if not wanted:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'@@SESSION.{name}' for name in wanted)}")
        before = dict(zip(wanted, cursor.fetchone() or (), strict=True))
    _set(connection, wanted)
    raw = connection.connection
    try:
        yield
    finally:
        if connection.connection is raw:
            with suppress(Error):
                _set(connection, before)


@contextmanager
def limited_transaction(connection: BaseDatabaseWrapper, limits: Limits) -> Iterator[None]:
    """Commit what is run within, with these time-outs on PostgreSQL, so that a pooler's session keeps nothing of them.

    Args:
        connection: in autocommit.
        limits: None of them leaves the server's own.
    """
    wanted = {"lock_timeout": limits.lock_timeout_ms, "statement_timeout": limits.statement_timeout_ms}
    with transaction.atomic(connection.alias), connection.cursor() as cursor:
        for name, limit_ms in wanted.items():
            if limit_ms is not None and connection.vendor == "postgresql":
                cursor.execute("SELECT set_config(%s, %s, true)", [name, str(limit_ms)])
        yield


def _mysql(connection: BaseDatabaseWrapper, limits: Limits) -> dict[str, float]:
    wanted: dict[str, float] = {}
    if limits.lock_timeout_ms is not None:
        seconds = max(1, math.ceil(limits.lock_timeout_ms / 1000))
        wanted = {"lock_wait_timeout": seconds, "innodb_lock_wait_timeout": seconds}
    if limits.statement_timeout_ms is not None:
        if getattr(connection, "mysql_is_mariadb", False):
            wanted["max_statement_time"] = limits.statement_timeout_ms / 1000
        else:
            wanted["max_execution_time"] = limits.statement_timeout_ms  # of SELECT alone
    return wanted


def _set(connection: BaseDatabaseWrapper, values: Mapping[str, float]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {', '.join(f'{name} = {value}' for name, value in values.items())}")
