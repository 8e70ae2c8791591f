"""Reverse operations that are left out, since what they would change goes anyway."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db.migrations import Migration
from django.db.migrations.operations import AddField, AlterField, CreateModel, RemoveField, RenameField, RenameModel

from smooth_migrations.halves import is_split
from smooth_migrations.reversibility import SCHEMA, database_parts

__all__ = ["needless_left_out"]

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]


@contextmanager
def needless_left_out(migration: Migration) -> Iterator[None]:
    """Let AlterField do nothing backwards on a field that the same migration has made.

    It goes with its column or its table. And Django makes an index of a new field when the migration is over, also
    where an AlterField has said meanwhile that there is to be none; the way back would make it once more
    (`deferred_sql`). Where code ran in between, only what concerns such an index is left out: the way back of that code
    needs the column as it was then.
    """
    needless = [*_needless(migration)]
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


def _but_for_index(field: "_Field") -> object:
    _, path, arguments, named = field.deconstruct()
    return path, arguments, {name: value for name, value in named.items() if name != "db_index"}


def _column(name: str, field: "_Field") -> str | None:
    if field.many_to_many:
        return None
    return field.db_column or (f"{name}_id" if field.remote_field is not None else name)
