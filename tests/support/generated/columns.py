"""The kinds of columns: the source of a field, and of a value in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.support.generated.world import Column, Model, Relation

__all__ = ["ALTERATIONS", "KEYS", "KINDS", "NUMBERS", "TEXTS", "field_source", "key_literal", "literal"]


@dataclass(frozen=True, slots=True)
class _Kind:
    field: str
    value: Callable[[int], str]
    arguments: tuple[str, ...] = ()
    distinct: bool = True
    unique: bool = True


def _text(number: int) -> str:
    return f"'v{number}'"


KINDS: Mapping[str, _Kind] = {
    "integer": _Kind("IntegerField", str),
    "char": _Kind("CharField", _text, ("max_length=40",)),
    "boolean": _Kind("BooleanField", lambda number: str(bool(number % 2)), distinct=False),
    "text": _Kind("TextField", _text),
    "small": _Kind("SmallIntegerField", str),
    "big": _Kind("BigIntegerField", str),
    "positive": _Kind("PositiveIntegerField", str),
    "wide char": _Kind("CharField", _text, ("max_length=90",)),
    "slug": _Kind("SlugField", _text, ("max_length=60",)),
    "email": _Kind("EmailField", lambda number: f"'v{number}@example.org'"),
    "decimal": _Kind("DecimalField", lambda number: f"Decimal('{number}.25')", ("max_digits=8", "decimal_places=2")),
    "wide decimal": _Kind(
        "DecimalField", lambda number: f"Decimal('{number}.25')", ("max_digits=12", "decimal_places=2")
    ),
    "float": _Kind("FloatField", lambda number: f"{number}.5"),
    "date": _Kind("DateField", lambda number: f"date(2020, 1, 1) + timedelta(days={number})"),
    "datetime": _Kind(
        "DateTimeField", lambda number: f"datetime(2020, 1, 1, 12, tzinfo=timezone.utc) + timedelta(days={number})"
    ),
    "duration": _Kind("DurationField", lambda number: f"timedelta(seconds={number})"),
    "uuid": _Kind("UUIDField", lambda number: f"UUID(int={number})"),
    "json": _Kind("JSONField", lambda number: f"{{'n': {number}}}", distinct=False, unique=False),
    "binary": _Kind("BinaryField", lambda number: f"b'v{number}'", unique=False),
    "address": _Kind("GenericIPAddressField", lambda number: f"'10.0.{number // 250}.{number % 250}'"),
}
NUMBERS = ("integer", "big", "small", "positive")
TEXTS = ("char", "text", "wide char", "slug")
_DECIMALS = ("decimal", "wide decimal")
ALTERATIONS: Mapping[str, tuple[str, ...]] = {kind: kinds for kinds in (NUMBERS, TEXTS, _DECIMALS) for kind in kinds}
"""Which kinds a column may be altered to, whatever stands in it."""

KEYS = ("BigAutoField", "AutoField", "UUIDField", "CharField")


def literal(kind: str, number: int) -> str:
    """Return the source of a value; 0 is the default."""
    return KINDS[kind].value(number)


def key_literal(model: Model, number: int) -> str:
    """Return the source of a primary key."""
    if model.key == "UUIDField":
        return f"UUID(int={number})"
    return f"'k{number}'" if model.key == "CharField" else str(number * 1000)


def field_source(column: Column, **extra: str) -> str:
    """Return the source of a field."""
    arguments: list[str] = []
    if column.target is not None:
        arguments += [f"'{column.target.path}'"]
        if column.kind != Relation.MANY:
            arguments += ["models.SET_NULL" if column.null else "models.CASCADE"]
        arguments += ["related_name='+'"]
        if column.through is not None:
            arguments += [f"through='{column.through.path}'"]
        name = str(column.kind)
    else:
        kind = KINDS[column.kind]
        name = kind.field
        arguments += kind.arguments
    flags = {
        "null=True": column.null,
        "unique=True": column.unique and column.kind != Relation.ONE_TO_ONE,
        "db_index=True": column.db_index and column.is_value,
        "db_index=False": not column.db_index and column.kind == Relation.FOREIGN_KEY,
        "db_constraint=False": not column.db_constraint,
        f"choices=[({_default(column)}, 'first')]": column.choices,
        f"default={_default(column)}": column.default,
        f"db_default={_default(column)}": column.db_default,
    }
    arguments += [text for text, holds in flags.items() if holds]
    arguments += [f"{key}={value}" for key, value in extra.items()]
    return f"models.{name}({', '.join(arguments)})"


def _default(column: Column) -> str:
    if not column.is_value:
        return "None"
    return "dict" if column.kind == "json" else literal(column.kind, 0)
