"""What could not be taken back, found before anything runs.

Inside one transaction everything can. Only migrations that must be committed before the decision are looked at.
"""

import re
from collections.abc import Iterator, Sequence

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations import AlterField, DeleteModel, RemoveField, RunSQL, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

__all__ = ["can_hold", "committed_early", "database_parts", "irreversible_operations"]

# Statements that SQLite runs in no transaction, or that end one.
_OUTSIDE = re.compile(r"\b(VACUUM|ATTACH|DETACH|COMMIT|ROLLBACK)\b", re.IGNORECASE)
_FAMILIES = {
    "integer": {
        *("AutoField", "BigAutoField", "SmallAutoField", "IntegerField", "BigIntegerField", "SmallIntegerField"),
        *("PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField"),
    },
    "text": {"CharField", "TextField", "SlugField", "URLField", "EmailField", "FilePathField"},
    "relation": {"ForeignKey", "OneToOneField"},
}


def can_hold(migration: Migration, connection: BaseDatabaseWrapper) -> bool:
    """Return whether a migration can run in a transaction that stays open.

    SQLite has one writer, whom a transaction of the migration's own would keep waiting just as long: there
    `atomic = False` is held too, unless a statement runs in no transaction.
    """
    if not connection.features.can_rollback_ddl:
        return False
    return bool(migration.atomic) or (connection.vendor == "sqlite" and not _leaves_transaction(migration))


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


def irreversible_operations(
    migration: Migration, state: ProjectState, connection: BaseDatabaseWrapper | None
) -> Iterator[str]:
    """Describe the operations of one migration whose reverse would fail or lose something.

    Args:
        migration: what would run forwards.
        state: the project's state before it; it is moved past the migration.
        connection: where to look for rows, or None to expect them everywhere. Only reads.
    """
    for operation in migration.operations:
        for part in database_parts(operation):
            reason = _reason(part, migration.app_label, state, connection)
            if reason:
                yield f"{operation.describe()} ({reason})"
        operation.state_forwards(migration.app_label, state)


def database_parts(operation: Operation) -> Iterator[Operation]:
    """Return an operation's database half: itself, or what a SeparateDatabaseAndState carries."""
    if isinstance(operation, SeparateDatabaseAndState):
        for part in operation.database_operations:
            yield from database_parts(part)
    else:
        yield operation


def _reason(
    operation: Operation, app_label: str, state: ProjectState, connection: BaseDatabaseWrapper | None
) -> str | None:
    if not operation.reversible:
        return "it has no reverse code"
    if isinstance(operation, RemoveField):
        name = operation.model_name_lower
        what = f"the values of {operation.name} would be lost"
    elif isinstance(operation, DeleteModel):
        name = operation.name_lower
        what = "its rows would be lost"
    elif isinstance(operation, AlterField) and _converts(operation, app_label, state):
        name = operation.model_name_lower
        what = f"the values that {operation.name} had would not come back"
    else:
        return None
    model = state.models.get((app_label, name))
    if model is None or connection is None:
        return what
    table = model.options.get("db_table") or f"{app_label}_{name}"
    return what if _has_rows(connection, table) else None


def _converts(operation: AlterField, app_label: str, state: ProjectState) -> bool:
    """Return whether values change with the field: NULL to a default, or from one type to another."""
    model = state.models.get((app_label, operation.model_name_lower))
    if model is None:
        return False
    old, new = model.fields[operation.name], operation.field
    if old.many_to_many or new.many_to_many:
        return False
    return bool(old.null and not new.null) or _family(old.get_internal_type()) != _family(new.get_internal_type())


def _family(internal_type: str) -> str:
    """Return what the types have in common that a value goes between unchanged, and back."""
    return next((name for name, types in _FAMILIES.items() if internal_type in types), internal_type)


def _has_rows(connection: BaseDatabaseWrapper, table: str) -> bool:
    try:
        with connection.cursor() as cursor:
            if table not in connection.introspection.table_names(cursor):
                return False
            cursor.execute(f"SELECT 1 FROM {connection.ops.quote_name(table)} LIMIT 1")  # noqa: S608 - quoted
            return cursor.fetchone() is not None
    except DatabaseError:
        return True
