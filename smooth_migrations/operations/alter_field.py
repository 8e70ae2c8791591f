"""AlterField: what takes something from the release still running is held back until that is gone."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Self

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.operations import AlterField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED

from smooth_migrations.conversions import length_of
from smooth_migrations.operations.base import AnyField, CannotSplit, Explanation, ModelKey, Obstacle, Place, Split
from smooth_migrations.operations.fields import clone, column_of, field_of, has_column, is_alike
from smooth_migrations.operations.obstacles import duplicates, too_long, unfilled, unfit
from smooth_migrations.operations.retyped import RetypeField

__all__ = ["SplitAlterField"]

_INTEGERS = {
    **dict.fromkeys(("SmallAutoField", "SmallIntegerField", "PositiveSmallIntegerField"), 0),
    **dict.fromkeys(("AutoField", "IntegerField", "PositiveIntegerField"), 1),
    **dict.fromkeys(("BigAutoField", "BigIntegerField", "PositiveBigIntegerField"), 2),
}
_TEXTS = frozenset({"CharField", "TextField", "SlugField", "URLField", "EmailField", "FilePathField", "FileField"})
# The arguments that say of which type a column is.
_OF_TYPES = frozenset({"max_length", "max_digits", "decimal_places"})
_HINT = "add a new field, copy the values, and remove the old field in a later release"


class SplitAlterField(Split):
    """What both releases can live with is changed at the deploy; NOT NULL, uniqueness and narrowing wait."""

    kind: ClassVar[str] = "alter_field"

    def __init__(self, operation: AlterField, place: Place, held: AnyField | None, what: Sequence[str]) -> None:
        self._operation = operation
        self._key = (place.app_label, operation.model_name_lower)
        self._name = operation.name
        self._held = held
        self._connection = place.connection
        column = column_of(place.schema, self._key, operation.name)
        self._what = f"alter {column}: {', '.join(what)}"

    @classmethod
    def of(cls, operation: AlterField, place: Place) -> Self | None:
        """Return the halves, where the release still running may write what the new column does not take.

        Raises:
            CannotSplit: the two releases need two types of one column.
        """
        model = place.model(operation.model_name)
        old = model.fields.get(operation.name) if model is not None else None
        new = operation.field
        if old is None or is_alike(old, new):
            return None
        if not (has_column(old) and has_column(new)):
            return cls._of_other_kind(operation, old, new)
        try:
            what, held = [*_types(operation, old, new, place.connection)], dict[str, object]()
        except CannotSplit:
            is_added = ((place.app_label, operation.model_name_lower), operation.name) in place.added
            if not is_added or old.primary_key or new.primary_key:
                raise
            return cls._of_added(operation, place, old)
        # Both releases work with the old type, and the new one comes as a whole.
        between = old if what else new
        if old.null and not new.null:
            held["null"], what = True, [*what, "NOT NULL"]
        if new.unique and not old.unique:
            held["unique"], what = False, [*what, "unique"]
        if _has_db_default(old) and not _has_db_default(new):
            # The release still running inserts by it.
            held["db_default"], what = old.db_default, [*what, "no default in the database"]
        if not what:
            return None
        still = clone(between, **{**(_relaxed(old, new) if between is old else {}), **held})
        return cls(operation, place, None if is_alike(old, still) else still, what)

    @classmethod
    def _of_added(cls, operation: AlterField, place: Place, old: AnyField) -> Self | None:
        """Return the halves for a field that the release still running does not know, and inserts rows without."""
        new, held = operation.field, dict[str, object]()
        if not new.null and not _has_db_default(new):
            held["null"] = True
        if new.unique and not old.unique:
            held["unique"] = False
        what = [word for name, word in (("null", "NOT NULL"), ("unique", "unique")) if name in held]
        return cls(operation, place, clone(new, **held), what) if held else None

    @classmethod
    def _of_other_kind(cls, operation: AlterField, old: AnyField, new: AnyField) -> Self | None:
        if bool(old.many_to_many) is not bool(new.many_to_many) or getattr(old, "generated", False):
            raise CannotSplit(f"{operation.describe()}: both releases would need it in their own way", hint=_HINT)
        return None

    def expand(self) -> Sequence[Operation]:
        """Change what harms neither release."""
        if self._held is None:
            return ()
        operation = self._operation
        return (AlterField(operation.model_name, operation.name, self._held, operation.preserve_default),)

    def contract(self, schema: ProjectState, project: ProjectState) -> Sequence[Operation]:
        """Make the column what the project says."""
        now, field = field_of(schema, self._key, self._name), field_of(project, self._key, self._name)
        if now is None or field is None or is_alike(now, field):
            return ()
        retyped = self._retyped(now, field)
        whole = AlterField(self._operation.model_name, self._name, self._filled(field))
        return (*retyped, whole) if not (retyped and is_alike(retyped[0].field, field)) else retyped

    def _retyped(self, now: AnyField, field: AnyField) -> tuple[RetypeField, ...]:
        """Return what changes the type by itself: that can be made ready."""
        # What type a foreign key has only the model knows that it refers to.
        if self._connection.vendor != "postgresql" or now.primary_key or now.remote_field or field.remote_field:
            return ()
        if now.db_type(self._connection) == field.db_type(self._connection):
            return ()
        named = now.deconstruct()[3]
        others = {*named, *field.deconstruct()[3]} - _OF_TYPES
        between = clone(field, **{name: named.get(name, NOT_PROVIDED) for name in others})
        return (RetypeField(self._operation.model_name, self._name, between),)

    def follow(self, key: ModelKey, old_name: str, new_name: str) -> None:
        """Find the field by its new name from here on."""
        if (key, old_name) == (self._key, self._name):
            self._name = new_name

    def _filled(self, field: AnyField) -> AnyField:
        # A default that was given to the migration alone still fills what is NULL.
        asked = self._operation.field
        if self._operation.preserve_default or not asked.has_default() or field.has_default():
            return field
        return clone(field, default=asked.default)

    def validate(
        self, connection: BaseDatabaseWrapper, schema: ProjectState, project: ProjectState
    ) -> Iterator[Obstacle]:
        """Yield NULLs that no default fills, duplicates, and values that are too long or too large."""
        name = self._name
        now, field = field_of(schema, self._key, name), field_of(project, self._key, name)
        if now is None or field is None:
            return
        model = schema.apps.get_model(*self._key)
        if now.null and not field.null:
            yield from unfilled(connection, model, name, self._filled(field))
        if field.unique and not now.unique:
            yield from duplicates(connection, model, (name,))
        if (length := length_of(field)) and now.get_internal_type() in _TEXTS:
            yield from too_long(connection, model, name, length)
        if all(_digits(field)) and _digits(field) != _digits(now):
            # What is behind the point is rounded, as `migrate` has it.
            digits, places = _digits(field)
            most = Decimal(10**digits - 1).scaleb(-places)
            yield from unfit(connection, model, name, (-most, most))
        if _size(field) is not None and _size(now) is not None:
            yield from unfit(connection, model, name, connection.ops.integer_field_range(field.get_internal_type()))

    def explain(self) -> Explanation:
        """Return what the expand half means for both releases."""
        table = f"{self._key[0]}.{self._key[1]}"
        return Explanation(
            locks=(f"ACCESS EXCLUSIVE on {table}, for a change of the catalogue",) if self._held is not None else (),
            rewrites=False,
            old_release="it finds the column as it knows it",
            new_release="what it writes is taken by the column as it was",
        )


def _relaxed(old: AnyField, new: AnyField) -> dict[str, object]:
    """Return what a field that keeps its type must take from the new release."""
    changed: dict[str, object] = {}
    if new.null and not old.null:
        changed["null"] = True
    if old.unique and not new.unique:
        changed["unique"] = False
    if _has_db_default(new):
        changed["db_default"] = new.db_default
    return changed


def _column(name: str, field: AnyField) -> str:
    """Return the column of a field that belongs to no model (Django's `get_attname_column`)."""
    return field.db_column or (name if field.remote_field is None else f"{name}_id")


def _has_db_default(field: AnyField) -> bool:
    return getattr(field, "db_default", NOT_PROVIDED) is not NOT_PROVIDED


def _types(operation: AlterField, old: AnyField, new: AnyField, connection: BaseDatabaseWrapper) -> Iterator[str]:
    """Yield in words why the column keeps its old type, which holds what both releases write."""
    if _column(operation.name, old) != _column(operation.name, new):
        raise CannotSplit(f"{operation.describe()} renames its column", hint=_HINT)
    if old.primary_key is not new.primary_key:
        raise CannotSplit(f"{operation.describe()} changes the primary key", hint=_HINT)
    if _target(old) != _target(new):
        raise CannotSplit(f"{operation.describe()} changes what it refers to", hint=_HINT)
    if old.remote_field is None:
        yield from _narrowed(operation, old, new, connection)


def _narrowed(operation: AlterField, old: AnyField, new: AnyField, connection: BaseDatabaseWrapper) -> Iterator[str]:
    is_now, is_to_be = old.get_internal_type(), new.get_internal_type()
    if _size(old) is not None and _size(new) is not None:
        if _size(old) != _size(new):
            yield f"type {is_to_be}"
    elif {is_now, is_to_be} <= _TEXTS:
        was, limit = length_of(old), length_of(new)
        if limit is not None and (was is None or limit < was):
            yield f"at most {limit} characters"
    elif is_now != is_to_be:
        raise CannotSplit(f"{operation.describe()} changes its type from {is_now} to {is_to_be}", hint=_HINT)
    elif _digits(old) != _digits(new):
        yield "numeric({}, {})".format(*_digits(new))
    elif hasattr(old, "base_field") and hasattr(new, "base_field"):
        # Of how many members an array is, the server does not ask (PostgreSQL manual, "Arrays").
        for change in _narrowed(operation, old.base_field, new.base_field, connection):
            raise CannotSplit(f"{operation.describe()} changes what its arrays hold: {change}", hint=_HINT)
    elif old.db_type(connection) != new.db_type(connection):
        kinds = " to ".join(str(field.db_type(connection)) for field in (old, new))
        raise CannotSplit(f"{operation.describe()} changes its type from {kinds}", hint=_HINT)


def _size(field: AnyField) -> int | None:
    return _INTEGERS.get(field.get_internal_type())


def _digits(field: AnyField) -> tuple[int, int]:
    return getattr(field, "max_digits", 0), getattr(field, "decimal_places", 0)


def _target(field: AnyField) -> object:
    relation: Any = field.remote_field
    if relation is None:
        return None
    model = relation.model
    target = model if isinstance(model, str) else model._meta.label  # noqa: SLF001 - public
    return target.lower(), getattr(field, "db_constraint", True), getattr(field, "to_fields", None)
