"""PostgreSQL's schema: everything that pg_dump writes, read from the catalogues."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from smooth_migrations.fingerprint.postgresql_catalogue import catalogue_query
from smooth_migrations.fingerprint.vendor import Descriptions, description_of_migration

__all__ = ["PostgreSQL", "undone", "waiting_at_most"]

# Which records Django sees is asked before, in the subquery; then what pg_dump sets too, so that the server writes
# every name with its schema and every constant in one way. Without jit the query takes milliseconds, whatever the
# planner thinks of it; half of them are the planner's own, and its joins stand in a good order as they are.
_SETTINGS: Final = """
    SELECT records,{further}
           set_config('search_path', '', true), set_config('quote_all_identifiers', 'off', true),
           set_config('datestyle', 'ISO, MDY', true), set_config('intervalstyle', 'postgres', true),
           set_config('timezone', 'UTC', true), set_config('extra_float_digits', '3', true),
           set_config('bytea_output', 'hex', true), set_config('jit', 'off', true),
           set_config('join_collapse_limit', '1', true), set_config('from_collapse_limit', '1', true),
           set_config('max_parallel_workers_per_gather', '0', true)
    FROM (
        SELECT (SELECT format('%I.%I', nspname, relname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
                WHERE c.oid = to_regclass('django_migrations')) AS records
        OFFSET 0
    ) AS seen
"""


class PostgreSQL:
    """Reads the catalogues of PostgreSQL 14 and newer.

    In a transaction of its own, or within a savepoint of the one that is open: either is rolled back, which puts the
    session's settings back and frees its locks, ACCESS SHARE on views and on what they read.

    Args:
        lock_timeout_ms: how long it waits for one of these, if the session's own time-out does not end it before.
    """

    def __init__(self, lock_timeout_ms: int | None = None) -> None:
        self._lock_timeout_ms = lock_timeout_ms

    def describe(self, connection: BaseDatabaseWrapper) -> Descriptions:
        """Describe everything but what belongs to the system or to an extension, in every schema."""
        with connection.cursor() as cursor, undone(connection, cursor):
            limit_ms = self._lock_timeout_ms
            further = "" if limit_ms is None else f" {waiting_at_most(limit_ms)},"
            cursor.execute(_SETTINGS.format(further=further))
            row = cursor.fetchone()
            cursor.execute(catalogue_query(connection.get_database_version()[0]))
            descriptions = list(cursor.fetchall())
            if row and row[0]:
                cursor.execute(f"SELECT app, name FROM {row[0]}")  # noqa: S608 - a name that the server quoted
                descriptions += [description_of_migration(*record) for record in cursor.fetchall()]
        return descriptions


def waiting_at_most(lock_timeout_ms: int) -> str:
    """Return a part of a SELECT's list that ends waiting for locks after so long, until the savepoint is rolled back.

    A shorter time-out of the session's own stays. Pure.

    Args:
        lock_timeout_ms: 100 or more.
    """
    # Whatever is less has two digits at the most; what may last for ever is written without a unit.
    return f"""set_config('lock_timeout', CASE WHEN current_setting('lock_timeout') ~ '^[0-9]{{1,2}}ms$'
                      THEN current_setting('lock_timeout') ELSE '{lock_timeout_ms}ms' END, true)"""


@contextmanager
def undone(connection: BaseDatabaseWrapper, cursor: CursorWrapper) -> Iterator[None]:
    """Put back at the end what is set within; nothing else may be done there."""
    # Django's own blocks know connections by alias and count what is nested; neither is wanted for a mere look.
    if connection.get_autocommit():
        begin, end = ["BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"], ["ROLLBACK"]
    else:
        begin = ["SAVEPOINT smooth_fingerprint"]
        end = ["ROLLBACK TO SAVEPOINT smooth_fingerprint", "RELEASE SAVEPOINT smooth_fingerprint"]
    for statement in begin:
        cursor.execute(statement)
    try:
        yield
    finally:
        if connection.connection is not None and not connection.connection.closed:
            for statement in end:
                cursor.execute(statement)
