"""Which operations have a server write all rows of a table anew, while nobody else reads or writes them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AddField, AlterField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState
from django.db.models import NOT_PROVIDED, Func, Value
from django.db.models.functions import Cast, Now

from smooth_migrations.conversions import length_of

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]

__all__ = ["rewrites"]

_AUTOMATIC = frozenset({"SmallAutoField", "AutoField", "BigAutoField"})
# Functions that give the same to all rows of a statement, so that PostgreSQL writes none of them (ALTER TABLE, notes).
_STEADY = (Now, Cast, Value)
# Types between which PostgreSQL changes its catalogue alone, unless the new one is shorter.
_TEXTS = frozenset({"CharField", "TextField", "SlugField", "URLField", "EmailField", "FilePathField", "FileField"})


def rewrites(operation: Operation, model: ModelState, connection: BaseDatabaseWrapper) -> Iterator[str]:
    """Yield in words why an operation has a table written anew; on SQLite, where that is Django's way, nothing.

    Args:
        operation: Django's own.
        model: as it is before it.
        connection: the database's. Nothing is asked of it but names of types.
    """
    if connection.vendor == "sqlite":
        return
    if isinstance(operation, AddField):
        yield from _of_new(operation.field)
    elif isinstance(operation, AlterField) and (old := model.fields.get(operation.name)) is not None:
        yield from _of_altered(old, operation.field, connection)


def _of_new(field: "_Field") -> Iterator[str]:
    if getattr(field, "generated", False):
        if getattr(field, "db_persist", False):
            yield "the value of a generated column is computed for every row"
    elif field.get_internal_type() in _AUTOMATIC:
        yield "every row gets a number"
    elif _is_volatile(getattr(field, "db_default", NOT_PROVIDED)):
        yield "its default in the database is another one for every row"


def _of_altered(old: "_Field", new: "_Field", connection: BaseDatabaseWrapper) -> Iterator[str]:
    if old.many_to_many or new.many_to_many or old.remote_field is not None or new.remote_field is not None:
        return
    types = old.get_internal_type(), new.get_internal_type()
    if {*types} <= _TEXTS:
        was, is_to_be = length_of(old), length_of(new)
        if is_to_be is not None and (was is None or is_to_be < was):
            yield f"a type of at most {is_to_be} characters takes values that may be longer"
        return
    if types == ("DecimalField", "DecimalField"):
        digits = [(getattr(field, "decimal_places", 0), getattr(field, "max_digits", 0)) for field in (old, new)]
        if digits[0][0] == digits[1][0] and digits[0][1] <= digits[1][1]:
            return
    columns = [str(field.db_type(connection)) for field in (old, new)]
    if columns[0] != columns[1]:
        yield f"its type changes from {columns[0]} to {columns[1]}"


def _is_volatile(default: object) -> bool:
    if default is NOT_PROVIDED or not hasattr(default, "flatten"):
        return False
    return any(isinstance(part, Func) and not isinstance(part, _STEADY) for part in default.flatten())
