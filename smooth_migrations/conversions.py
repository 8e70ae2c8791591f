"""Which values an altered field does not keep: what comes back with its column is another value than there was."""

from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.state import ProjectState
from django.db.models.utils import make_model_tuple

__all__ = ["changes_type", "converts", "length_of", "shortening", "stored"]

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]

_AUTOMATIC = {"AutoField", "BigAutoField", "SmallAutoField"}
# By a word of the type's name, the most telling one first.
_SIZES = {"Small": 1, "Big": 3, "Integer": 2, "Auto": 2}
_SHORT_TEXT = {"CharField", "SlugField", "URLField", "EmailField", "FilePathField", "FileField"}
_FAMILIES = {
    "integer": {
        *_AUTOMATIC,
        *("IntegerField", "BigIntegerField", "SmallIntegerField"),
        *("PositiveIntegerField", "PositiveBigIntegerField", "PositiveSmallIntegerField"),
    },
    "text": {"TextField", *_SHORT_TEXT},
    "decimal": {"DecimalField"},
    "relation": {"ForeignKey", "OneToOneField"},
}


def converts(connection: BaseDatabaseWrapper, old: "_Field | None", new: "_Field | None") -> bool:
    """Return whether values change with the field: NULL to a default, or from one type to another."""
    if old is None or new is None or old.many_to_many or new.many_to_many:
        return False
    return bool(old.null and not new.null) or changes_type(connection, old, new)


def changes_type(connection: BaseDatabaseWrapper, old: "_Field", new: "_Field") -> bool:
    """Return whether values go from one type to another, and may not come back as they were."""
    old_type, new_type = old.get_internal_type(), new.get_internal_type()
    if _family(old_type) != _family(new_type):
        return True
    if _family(old_type) in _FAMILIES or getattr(old, "generated", False):
        return False
    if hasattr(old, "base_field") and hasattr(new, "base_field"):
        parts = old.base_field, new.base_field
        return converts(connection, *parts) or shortening(connection, *parts, column="") is not None
    return old.db_type(connection) != new.db_type(connection)


def length_of(field: "_Field") -> int | None:
    """Return the most characters that a field takes; histories are found that give it as a text. Pure."""
    return None if field.max_length is None else int(field.max_length)


def shortening(connection: BaseDatabaseWrapper, old: "_Field", new: "_Field", *, column: str) -> str | None:
    """Return the condition in SQL under which a value of the same type does not stay what it is, and none objects.

    Servers cut a text off that is cast, and spaces at its end always; they round decimals, and MariaDB numbers a zero
    anew where numbers become automatic. SQLite keeps every value.

    Args:
        connection: where. It is asked for its mode once.
        old: the field.
        new: what it becomes; `converts` says no of the two.
        column: quoted.

    Returns:
        None where all values stay; a per cent sign in it is one.
    """
    if connection.vendor == "sqlite":
        return None
    types = old.get_internal_type(), new.get_internal_type()
    limits = [_limit(old), _limit(new)]
    if limits[1] is not None and (limits[0] is None or limits[0] > limits[1]):
        return f"CHAR_LENGTH({column}) > {limits[1]}"
    if types == ("DecimalField", "DecimalField"):
        places = [_part(field, "decimal_places") for field in (old, new)]
        if places[1] < places[0]:
            return f"ROUND({column}, {places[1]}) <> {column}"
    if connection.vendor == "mysql" and types[1] in _AUTOMATIC and types[0] not in _AUTOMATIC:
        return f"{column} = 0"
    return "TRUE" if _is_loose(connection) and _may_clip(old, new) else None


def stored(field: "_Field", state: ProjectState) -> "_Field":
    """Return the field whose values one stores: the key that a relation refers to, else itself."""
    while field.remote_field is not None and not field.many_to_many:
        model = state.models.get(make_model_tuple(field.remote_field.model))
        if model is None:
            break
        name = getattr(field.remote_field, "field_name", None)
        keys = [item for key, item in model.fields.items() if (key == name if name else item.primary_key)]
        if not keys:
            break
        field = keys[0]
    return field


def _is_loose(connection: BaseDatabaseWrapper) -> bool:
    """Return whether MariaDB or MySQL puts the nearest value in place of one that does not fit (strict mode)."""
    modes = getattr(connection, "sql_mode", {"STRICT_ALL_TABLES"})
    return not {"STRICT_ALL_TABLES", "STRICT_TRANS_TABLES"} & {*modes}


def _may_clip(old: "_Field", new: "_Field") -> bool:
    before, after = (
        (
            _part(field, "max_digits") - _part(field, "decimal_places"),
            next((size for word, size in _SIZES.items() if word in field.get_internal_type()), 0),
        )
        for field in (old, new)
    )
    signs = ["Positive" in field.get_internal_type() for field in (old, new)]
    collations = [getattr(field, "db_collation", None) for field in (old, new)]
    return any(a > b for a, b in zip(before, after, strict=True)) or signs[0] != signs[1] or len({*collations}) > 1


def _part(field: "_Field", name: str) -> int:
    return int(getattr(field, name, None) or 0)


def _limit(field: "_Field") -> int | None:
    return length_of(field) if field.get_internal_type() in _SHORT_TEXT else None


def _family(internal_type: str) -> str:
    """Return what the types have in common that a value goes between unchanged, and back."""
    return next((name for name, types in _FAMILIES.items() if internal_type in types), internal_type)
