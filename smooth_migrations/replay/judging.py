"""What an operation does, as far as its statements tell all of it. Pure."""

import datetime as dt
import decimal
import uuid
from typing import Any, Final

from django.db.migrations import AddField, AlterField, CreateModel, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from django.db.models import NOT_PROVIDED, Field, Q
from django.db.models.constants import LOOKUP_SEP
from django.db.models.query_utils import RegisterLookupMixin

from smooth_migrations.halves import Placed, placed_of
from smooth_migrations.operations.base import Split
from smooth_migrations.reversibility import PLAIN, database_parts

__all__ = ["is_djangos", "is_steady", "is_told_by_statements"]

# Defaults that are the same each time they are asked for.
_STEADY: Final = (NOT_PROVIDED, bool, bytes, dict, float, frozenset, int, list, set, str, tuple)
_KNOWN: Final = frozenset({"builtins", "datetime", "decimal", "django", "uuid"})
# What of a field is more than a name or a type.
_PARTS: Final = ("db_default", "expression", "base_field", "output_field")
# What a condition that names no lookup has.
_UNNAMED: Final = ("exact", "isnull")
_CONSTANTS: Final = (
    *(type(None), str, bytes, int, float, list, dict, tuple, set, frozenset, decimal.Decimal, uuid.UUID),
    *(dt.date, dt.time, dt.timedelta),
)


def is_told_by_statements(operation: Operation) -> bool:
    """Return whether an operation is schema alone: another database in the same state gets the same statements.

    Django's own code says then what it does, and none of others writes a part of a statement: no field, expression,
    index or constraint, and no value that goes into rows. What a field holds beside, such as validators, is in none.
    """
    placed = placed_of(operation)
    original = placed.operation if placed else operation
    if placed is not None and not _is_as_anywhere(placed):
        return False
    is_plain = type(original).__module__ in PLAIN or type(original) is SeparateDatabaseAndState
    parts = [*database_parts(original)] if is_plain else []
    return is_plain and all(map(_is_schema_alone, parts))


def is_steady(field: "Field[Any, Any]") -> bool:
    """Return whether what is written into existing rows for a field is the same each time."""
    default = getattr(field, "default", None)
    if getattr(field, "auto_now", False) or getattr(field, "auto_now_add", False):
        return False
    if callable(default):
        is_constant = any(default is kind for kind in _STEADY)
    else:
        is_constant = isinstance(default, _CONSTANTS) or type(default).__module__.startswith("django.")
    return is_constant and _is_of_django(field)


def is_djangos(value: Any) -> bool:  # noqa: ANN401 - whatever an operation is made of
    """Return whether none of others' code says what a part of an operation, such as a field, is in a statement."""
    if isinstance(value, dict):
        value = (*value, *value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_djangos, value))
    if isinstance(value, Field):
        return _is_of_django(value) and all(is_djangos(getattr(value, part, None)) for part in _PARTS)
    if isinstance(value, type) or callable(value):
        return str(getattr(value, "__module__", "")).split(".")[0] in _KNOWN
    if type(value).__module__.split(".")[0] not in _KNOWN or (isinstance(value, str | Q) and _may_name_others(value)):
        return False
    if hasattr(value, "deconstruct"):
        return all(map(is_djangos, value.deconstruct()))
    # Expressions that cannot be told by their arguments are told by what they hold.
    return not hasattr(value, "get_source_expressions") or all(map(is_djangos, value.get_source_expressions()))


def _is_schema_alone(part: Operation) -> bool:
    if type(part).__module__ not in PLAIN or (isinstance(part, AddField | AlterField) and not is_steady(part.field)):
        return False
    held = vars(part)
    if isinstance(part, CreateModel):
        # What a model inherits, and its managers, are in no statement.
        held = {"fields": part.fields, **{name: part.options.get(name, ()) for name in ("constraints", "indexes")}}
    return all(map(is_djangos, held.values()))


def _is_of_django(field: "Field[Any, Any]") -> bool:
    return type(field).__module__.startswith("django.")


def _may_name_others(value: str | Q) -> bool:
    """Return whether a text, or a condition, may mean a lookup or transform that others have registered.

    Those that they have registered for fields of their own are left out.
    """
    used = {*_UNNAMED} if isinstance(value, Q) else {*value.split(LOOKUP_SEP)[1:]}
    return bool(used) and not used.isdisjoint(_lookups_of_others())


def _lookups_of_others() -> set[str]:
    kinds: list[type[RegisterLookupMixin]] = [RegisterLookupMixin]
    names = set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.split(".")[0] in _KNOWN:
            own: dict[str, type] = vars(kind).get("class_lookups", {})
            names |= {name for name, lookup in own.items() if lookup.__module__.split(".")[0] not in _KNOWN}
    return names


def _is_as_anywhere(placed: Placed) -> bool:
    """Return whether an operation is placed as it is whatever is in the database."""
    halves, field = placed.split, getattr(placed.operation, "field", None)
    if halves is None:
        return True
    asks = type(halves).hindrances is not Split.hindrances or type(halves).unready is not Split.unready
    return not asks and (field is None or is_steady(field))
