"""Take the strong locks of a plan together, right before the first of its statements that needs one.

Whoever holds a lock on one table and waits for another may be waited for by somebody else, the other way round.
PostgreSQL ends such a circle after `deadlock_timeout`, and may end the client of a release that is live. So nobody is
waited for while a strong lock is held for longer than a part of that time: the locks are let go, and taken again
beginning with the one that was missing, as C++'s `std::lock` does.
"""

import json
import re
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations.locks.modes import Locks, Mode, together
from smooth_migrations.reversibility import can_hold

__all__ = ["LocksFirst", "take_together"]

_CHANGE: Final = re.compile(r"(?:^|;)\s*(?:ALTER|COMMENT|CREATE|DROP|LOCK|TRUNCATE)\b", re.IGNORECASE)
_WANTED: Final = "SELECT set_config('smooth_migrations.locks', %s, true)"
# The exceptions' blocks are savepoints: what was locked within them is let go. Nobody is waited for while nothing is
# held but for lock_timeout, which may be none, and half of deadlock_timeout afterwards.
_TAKE: Final = """
DO $smooth$
DECLARE
    started timestamptz := clock_timestamp();
    lock_timeout_ms int := (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'lock_timeout');
    held_at_most interval := (SELECT setting::int / 2 * interval '1 ms' FROM pg_catalog.pg_settings
                              WHERE name = 'deadlock_timeout');
    ends timestamptz := CASE WHEN lock_timeout_ms > 0 THEN started + lock_timeout_ms * interval '1 ms' END;
    tables text[];
    modes text[];
    until timestamptz;
    held_since timestamptz;
    number int;
    missing int := 1;
BEGIN
    SELECT array_agg(t.name ORDER BY t.name), array_agg(t.mode ORDER BY t.name) INTO tables, modes
    FROM pg_catalog.json_to_recordset(current_setting('smooth_migrations.locks')::json) AS t(name text, mode text)
    WHERE to_regclass(t.name) IS NOT NULL;
    WHILE cardinality(tables) > 0 LOOP
        BEGIN
            held_since := NULL;
            FOR number IN SELECT n FROM generate_subscripts(tables, 1) AS n ORDER BY n <> missing, n LOOP
                until := least(ends, held_since + held_at_most);
                PERFORM set_config('lock_timeout', CASE WHEN until IS NULL THEN '0' ELSE
                    greatest(1, ceil(extract(epoch FROM until - clock_timestamp()) * 1000))::int::text
                END, true);
                EXECUTE format('LOCK TABLE %s IN %s MODE', tables[number], modes[number]);
                held_since := coalesce(held_since, clock_timestamp());
            END LOOP;
            EXIT;
        EXCEPTION
            WHEN lock_not_available OR deadlock_detected THEN
                IF clock_timestamp() >= ends THEN
                    RAISE;
                END IF;
                missing := number;
            WHEN insufficient_privilege OR wrong_object_type OR undefined_table THEN
                -- The statement that needs it will say so, if it does.
                tables := tables[:number - 1] || tables[number + 1:];
                modes := modes[:number - 1] || modes[number + 1:];
                missing := 1;
        END;
    END LOOP;
    PERFORM set_config('lock_timeout', lock_timeout_ms::text, true);
END
$smooth$
"""


def take_together(connection: BaseDatabaseWrapper, wanted: Locks) -> None:
    """Lock tables until the end of the transaction that is open: all of them or none, within `lock_timeout`.

    Those that are not there, or may not be locked by this role, are left out. Does nothing but on PostgreSQL; safe to
    repeat.

    Args:
        connection: the database's.
        wanted: the tables and views, with the modes.

    Raises:
        OperationalError: others did not let go of them (SQLSTATE 55P03).
    """
    if connection.vendor != "postgresql" or not wanted:
        return
    rows = [{"name": connection.ops.quote_name(table), "mode": mode.sql} for table, mode in wanted.items()]
    with connection.cursor() as cursor:
        cursor.execute(_WANTED, [json.dumps(rows)])
        cursor.execute(_TAKE)


class LocksFirst:
    """One of Django's execute wrappers, which locks what a plan needs before its first statement that needs any.

    Data migrations before that hold up nobody. Each transaction does so once.

    Args:
        connection: the database's.

    Attributes:
        built: the tables, quoted, whose indexes were built before: no statement of theirs keeps writers waiting.
        plan: what each migration of a plan locks, in its order.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self.built: AbstractSet[str] = frozenset()
        self._connection = connection
        self.plan: Sequence[tuple[Migration, Locks]] = ()
        self._wanted: Locks = {}
        self._done: object = None

    def expect(self, plan: Sequence[tuple[Migration, Locks]]) -> None:
        """Take note of a plan's locks, in its order."""
        self.plan = plan

    def start(self, migration: Migration, *, alone: bool) -> None:
        """Take note of the migration that runs next.

        Args:
            migration: which.
            alone: whether its transaction holds no other one.
        """
        at = next((number for number, (each, _locks) in enumerate(self.plan) if each == migration), len(self.plan))
        held = self.plan[at : at + 1] if alone else self.plan[at:]
        ends = next((n for n, (each, _locks) in enumerate(held) if not can_hold(each, self._connection)), len(held))
        wanted = together(locks for _migration, locks in held[:ends])
        is_built = {table for table in wanted if self._connection.ops.quote_name(table) in self.built}
        self._wanted = {
            table: mode for table, mode in wanted.items() if mode is not Mode.SHARE or table not in is_built
        }

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Run a statement; one of Django's execute wrappers."""
        block = next(iter(self._connection.atomic_blocks), None)
        if block is not self._done and self._needs_locks(str(sql)):
            self._done = block
            take_together(self._connection, self._wanted)
        return execute(sql, params, many, context)

    def _needs_locks(self, sql: str) -> bool:
        return _CHANGE.search(sql) is not None and any(table in sql for table in self._wanted)
