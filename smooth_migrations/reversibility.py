"""Which migrations one transaction can hold, which are permanent before a call is over, and which harm nobody then."""

import re
from collections.abc import Iterator, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations import RunPython, RunSQL, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

__all__ = [
    "LEFT",
    "PLAIN",
    "SCHEMA",
    "can_hold",
    "committed_early",
    "database_parts",
    "is_online",
    "is_online_part",
    "is_plain_kind",
]

PLAIN = frozenset({"django.db.migrations.operations.models", "django.db.migrations.operations.fields"})
"""Where operations come from that are schema alone, and do it in statements that a transaction can hold."""

SCHEMA = PLAIN | {"django.contrib.postgres.operations"}
"""Where those come from that are schema alone; whatever comes from elsewhere may run any code."""

LEFT = frozenset({"smooth_migrations.backfill.operation"})
"""Where those come from that change rows alone, which an undo leaves as they are: nothing of them is recorded."""

# In the `hints` of RunPython and RunSQL, which routers are given too.
_DECLARED = "smooth_online"
_ONLINE = frozenset({"AddIndexConcurrently", "ValidateConstraint"})
# A unique index would be one more constraint.
_BUILDS_INDEX = re.compile(r"\s*CREATE\s+INDEX\s+CONCURRENTLY\b[^;]*;?\s*", re.IGNORECASE)
# Statements that SQLite runs in no transaction, or that end one.
_OUTSIDE = re.compile(r"\b(VACUUM|ATTACH|DETACH|COMMIT|ROLLBACK)\b", re.IGNORECASE)


def is_plain_kind(operation: Operation) -> bool:
    """Return whether an operation is one of those, or a subclass of one from elsewhere, which may do more."""
    return any(kind.__module__ in PLAIN for kind in type(operation).__mro__)


def can_hold(migration: Migration, connection: BaseDatabaseWrapper) -> bool:
    """Return whether a migration can run in a transaction that stays open.

    SQLite has one writer, whom a transaction of the migration's own would keep waiting just as long: there
    `atomic = False` is held too, unless a statement runs in no transaction.
    """
    if not connection.features.can_rollback_ddl:
        return False
    return bool(migration.atomic) or (connection.vendor == "sqlite" and not _leaves_transaction(migration))


def is_online(migration: Migration) -> bool:
    """Return whether all that a migration does outside a transaction is to build indexes and to validate constraints.

    Or to fill columns batch by batch. Or it is code of which its project says so. While that runs nobody
    waits for it, it is as good left as taken back, and it can be tried again.
    """
    parts = [part for operation in migration.operations for part in database_parts(operation)]
    return not migration.atomic and all(is_online_part(part) for part in parts)


def is_online_part(part: Operation) -> bool:
    """Return whether one operation, none within another, is of that kind."""
    if isinstance(part, RunPython | RunSQL) and part.hints.get(_DECLARED):
        return bool(part.reversible)
    if type(part).__module__ in LEFT:
        return True
    if isinstance(part, RunSQL):
        texts = [part.sql] if isinstance(part.sql, str) else [*part.sql]
        return part.reversible and all(isinstance(text, str) and _BUILDS_INDEX.fullmatch(text) for text in texts)
    return any(
        base.__module__ == "django.contrib.postgres.operations" and base.__name__ in _ONLINE
        for base in type(part).__mro__
    )


def _leaves_transaction(migration: Migration) -> bool:
    parts = [part for operation in migration.operations for part in database_parts(operation)]
    texts = [str(part.sql) for part in parts if isinstance(part, RunSQL)]
    return any(_OUTSIDE.search(text) for text in texts)


def committed_early(
    plan: Sequence[tuple[Migration, bool]], connection: BaseDatabaseWrapper, *, compensated: bool
) -> Sequence[Migration]:
    """Return the migrations of a plan that become permanent before the call is over.

    Args:
        plan: (migration, backwards) in order.
        connection: the target's.
        compensated: whether each migration is committed by itself.
    """
    migrations = [migration for migration, _backwards in plan]
    if compensated:
        return migrations
    last = max((index for index, migration in enumerate(migrations) if not can_hold(migration, connection)), default=-1)
    return migrations[: last + 1]


def database_parts(operation: Operation) -> Iterator[Operation]:
    """Return an operation's database half: itself, or what a SeparateDatabaseAndState carries."""
    if isinstance(operation, SeparateDatabaseAndState):
        for part in operation.database_operations:
            yield from database_parts(part)
    else:
        yield operation
