"""What an operation is, as far as its undo is concerned."""

import re

from django.db.migrations import Migration, RunPython, RunSQL, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

from smooth_migrations.reversibility import LEFT, SCHEMA, database_parts

__all__ = ["defines", "has_code", "is_code", "is_rows_alone", "name_of"]

# What a statement begins with that changes more than rows.
_DEFINES = re.compile(r"\b(CREATE|ALTER|DROP|RENAME|TRUNCATE|COMMENT|REINDEX)\b", re.IGNORECASE)


def name_of(operation: Operation) -> str:
    """Return what an operation is, and the table or column that it makes where that has a name of its own."""
    given: list[str | None] = [getattr(operation, "options", {}).get("db_table")]
    if (field := getattr(operation, "field", None)) is not None:
        given += [field.db_column, getattr(field, "db_table", None)]
    return f"{type(operation).__name__} ({', '.join([operation.describe(), *filter(None, given)])})"


def is_code(operation: Operation) -> bool:
    """Return whether it may run code of somebody's own."""
    parts = [] if type(operation) is SeparateDatabaseAndState else [operation]
    return any(type(part).__module__ not in SCHEMA | LEFT for part in (*parts, *database_parts(operation)))


def defines(operation: Operation, *, backwards: bool) -> bool:
    """Return whether it is plain to see that an operation changes more than rows."""
    return any(
        type(part).__module__ in SCHEMA
        or (isinstance(part, RunSQL) and _DEFINES.search(str(part.reverse_sql if backwards else part.sql)))
        for part in database_parts(operation)
    )


def is_rows_alone(operation: Operation, *, backwards: bool) -> bool:
    """Return whether an operation changes rows and no definitions, so that its way back may be gone twice."""
    return not defines(operation, backwards=backwards) and all(
        isinstance(part, RunPython | RunSQL) or type(part).__module__ in LEFT for part in database_parts(operation)
    )


def has_code(migration: Migration) -> bool:
    """Return whether a migration may run code, whose reverse is whatever somebody wrote."""
    return any(is_code(operation) for operation in migration.operations)
