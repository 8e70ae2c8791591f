"""What a transaction locks and rewrites, seen from within it after each of its statements."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.findings import HeldLock, Measured, Rewritten

__all__ = ["Measuring"]

# Weakest first (PostgreSQL manual, 13.3.1). What a mere reader takes, ACCESS SHARE, is left out.
_MODES = (
    *("RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock"),
    *("ExclusiveLock", "AccessExclusiveLock"),
)
# Indexes too: whoever plans a query on a table locks them.
_RELATIONS = """
    SELECT c.oid, c.oid::regclass::text, pg_relation_filenode(c.oid), c.relkind IN ('r', 'm'), pg_table_size(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I', 'v', 'S') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND NOT starts_with(c.relname, 'smooth_')
"""
_FILES = "SELECT oid, pg_relation_filenode(oid) FROM pg_class WHERE relkind IN ('r', 'm')"
_LOCKS = "SELECT relation, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted"
# A role that may not read a sequence is shown no position.
_SEQUENCES = "SELECT schemaname || '.' || sequencename, last_value FROM pg_sequences WHERE schemaname <> 'pg_temp'"


class Measuring:
    """Measures what is run on a connection; only PostgreSQL can say more than how long it took.

    Args:
        connection: the target's. Only reads; one query of the server's own locks follows each statement.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._asks = connection.vendor == "postgresql"
        self._relations: dict[int, tuple[str, int | None, bool, int]] = {}
        self._sequences: dict[str, int | None] = {}
        self._since_s: dict[tuple[int, str], float] = {}
        self._started_s = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Measure what is run within."""
        if self._asks:
            with transaction.atomic(self._connection.alias):
                self._relations = {oid: rest for oid, *rest in self._rows(_RELATIONS)}
                self._sequences = dict(self._rows(_SEQUENCES))
        self.restart()
        with self._connection.execute_wrapper(self):
            yield

    def restart(self) -> None:
        """Forget what was seen: a transaction begins, and an earlier one was rolled back. Safe to repeat."""
        self._started_s = time.monotonic()
        self._since_s.clear()

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Run a statement; one of Django's execute wrappers."""
        started_s = time.monotonic()
        result = execute(sql, params, many, context)
        if self._asks and self._connection.in_atomic_block:
            for oid, mode in self._rows(_LOCKS):
                if oid in self._relations and mode in _MODES:
                    self._since_s.setdefault((oid, mode), started_s)
        return result

    def measured(self) -> Measured:
        """Return what has been seen until now; the transaction must still be open."""
        now_s = time.monotonic()
        duration_ms = (now_s - self._started_s) * 1000
        if not self._asks:
            return Measured(duration_ms)
        held = [
            HeldLock(self._relations[oid][0], mode, (now_s - since_s) * 1000)
            for (oid, mode), since_s in self._since_s.items()
        ]
        files = dict(self._rows(_FILES))
        rewritten = [
            Rewritten(name, size)
            for oid, (name, file, is_table, size) in self._relations.items()
            if is_table and files.get(oid, file) != file
        ]
        positions = dict(self._rows(_SEQUENCES))
        return Measured(
            duration_ms,
            locks=tuple(sorted(held, key=lambda lock: (lock.relation, _MODES.index(lock.mode)))),
            rewritten=tuple(sorted(rewritten, key=lambda table: table.table)),
            advanced=tuple(sorted(name for name, at in self._sequences.items() if positions.get(name, at) != at)),
        )

    def _rows(self, sql: str) -> list[Any]:
        # Past Django's wrappers: this one would ask about its own question.
        with self._connection.connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())
