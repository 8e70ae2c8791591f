"""Fields of which two releases see a different half: `new_field` and `deprecated_field`."""

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from smooth_migrations.helpers.deprecated import DeprecatedField
from smooth_migrations.helpers.filled import NewField
from smooth_migrations.helpers.subclassing import add_mixin
from smooth_migrations.helpers.use import OnUse

if TYPE_CHECKING:
    from django.db.models import Field

__all__ = ["deprecated_field", "new_field"]

F = TypeVar("F", bound="Field[Any, Any]")


def new_field(field: F) -> F:
    """Make a field nullable in the database, for the release still running, which inserts rows without it.

    In a model under `backward_compatible_model` this release must give it a value. In the release after this one take
    the call away, and `makemigrations` makes the column NOT NULL.

    Args:
        field: a new one, as the model is to have it in the end.

    Returns:
        the same field.

    Raises:
        ValueError: it has no column that could be nullable, or is wrapped already.
    """
    _refuse(field)
    if field.many_to_many:
        raise ValueError("new_field: a ManyToManyField has no column; it needs no wrapper")
    add_mixin(field, NewField).smooth_begin()
    return field


def deprecated_field(field: F, *, on_use: Literal["raise", "warn"] = "raise") -> F:
    """Keep a field's column for the release still running, and have this release do without it.

    It is neither selected nor saved, and to read, write or query it is an error. A column without a database default
    becomes nullable, so that rows can be inserted without it. Rows that a foreign key refers to can be deleted: the
    reference is taken out. In the release after this one take the field away, and `makemigrations` drops the column.

    Args:
        field: of any kind but a primary key.
        on_use: "warn" gives a `DeprecationWarning` instead of an error, and leaves the field working.

    Returns:
        the same field.

    Raises:
        ValueError: it is a primary key, is wrapped already, or `on_use` is something else.
    """
    _refuse(field)
    add_mixin(field, DeprecatedField).smooth_begin(OnUse(on_use))
    return field


def _refuse(field: "Field[Any, Any]") -> None:
    if hasattr(field, "smooth_plain"):
        raise ValueError("a field can be under new_field or deprecated_field once")
    if field.primary_key:
        raise ValueError("a primary key can be neither new nor deprecated: every row is known by it")
