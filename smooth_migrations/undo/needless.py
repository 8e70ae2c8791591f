"""Reverse operations that are left out, since what they would change goes anyway."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.operations import AddField, AlterField, CreateModel, RemoveField, RenameField, RenameModel
from django.db.migrations.operations.base import Operation

from smooth_migrations.halves import is_split
from smooth_migrations.reversibility import SCHEMA, database_parts
from smooth_migrations.undo.tables import EXTENSIONS, Definitions

__all__ = ["needless_left_out"]

_POSTGRES = "django.contrib.postgres.operations"

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]


@contextmanager
def needless_left_out(
    migration: Migration, connection: BaseDatabaseWrapper, before: Definitions | None
) -> Iterator[None]:
    """Let AlterField do nothing backwards on a field that the same migration has made, nor an extension that was there.

    It goes with its column or its table. And Django makes an index of a new field when the migration is over, also
    where an AlterField has said meanwhile that there is to be none; the way back would make it once more
    (`deferred_sql`). Where code ran in between, only what concerns such an index is left out: the way back of that code
    needs the column as it was then. And Django makes an extension where there is none, and drops it whether it has made
    it or not; on another server than PostgreSQL it makes none, and cannot drop it.

    Args:
        migration: which goes back, or an operation of it.
        connection: where.
        before: what was there before it.
    """
    needless = [*_needless(migration), *_existing(migration, connection, before)]
    for operation in needless:
        operation.__dict__["database_backwards"] = _do_nothing
    try:
        yield
    finally:
        for operation in needless:
            operation.__dict__.pop("database_backwards", None)


def _do_nothing(*_args: object) -> None:
    """Stand in for a reverse operation."""


def _needless(migration: Migration) -> Iterator[AlterField]:
    made: dict[tuple[str, str], _Field] = {}
    seen_by_code: set[tuple[str, str]] = set()
    for operation in (part for each in migration.operations for part in database_parts(each)):
        if isinstance(operation, CreateModel):
            made |= {(operation.name_lower, name.lower()): field for name, field in operation.fields}
        elif isinstance(operation, AddField):
            made[operation.model_name_lower, operation.name_lower] = operation.field
        elif isinstance(operation, RenameField | RenameModel):
            made.clear()
        elif isinstance(operation, RemoveField):
            made.pop((operation.model_name_lower, operation.name_lower), None)
        elif isinstance(operation, AlterField):
            key = (operation.model_name_lower, operation.name_lower)
            before = made.get(key)
            if (
                not is_split(operation)
                and before is not None
                and _column(key[1], before) == _column(key[1], operation.field) is not None
                and (key not in seen_by_code or _but_for_index(before) == _but_for_index(operation.field))
            ):
                made[key] = operation.field
                yield operation
            else:
                made.pop(key, None)
        elif type(operation).__module__ not in SCHEMA:
            seen_by_code |= made.keys()


def _existing(migration: Migration, connection: BaseDatabaseWrapper, before: Definitions | None) -> Iterator[Operation]:
    is_elsewhere = connection.vendor != "postgresql"
    extensions = () if is_elsewhere else (before or {}).get(EXTENSIONS, ())
    for operation in (part for each in migration.operations for part in database_parts(each)):
        # By its name, since the class needs psycopg, which a project on another server may lack.
        bases = {base.__name__ for base in type(operation).__mro__ if base.__module__ == _POSTGRES}
        if (is_elsewhere and bases) or ("CreateExtension" in bases and getattr(operation, "name", None) in extensions):
            yield operation


def _but_for_index(field: "_Field") -> object:
    _, path, arguments, named = field.deconstruct()
    return path, arguments, {name: value for name, value in named.items() if name != "db_index"}


def _column(name: str, field: "_Field") -> str | None:
    if field.many_to_many:
        return None
    return field.db_column or (f"{name}_id" if field.remote_field is not None else name)
