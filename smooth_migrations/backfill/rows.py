"""Which rows are filled, with what, and between which keys."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Case, ExpressionWrapper, F, Model, Q, QuerySet, Value, When
from django.db.models.lookups import IsNull

from smooth_migrations.backfill.operation import Backfill

__all__ = ["Rows"]


class Rows:
    """The rows of one table.

    Args:
        operation: what is done with them.
        model: as it is at this moment of the history.
        connection: the database's.
    """

    def __init__(self, operation: Backfill, model: type[Model], connection: BaseDatabaseWrapper) -> None:
        self._model = model
        self._operation = operation
        self._all: QuerySet[Any] = model._base_manager.using(connection.alias)  # noqa: SLF001 - public, for such uses

    @property
    def can_tell(self) -> bool:
        """Whether a row that is filled shows it: by default one has no NULL any more."""
        return self._operation.where is None

    def have_more(self) -> bool:
        """Return whether a row has NULL where its expression has a value. Only reads."""
        found = Q(pk__in=[])
        for name, value in self._operation.values.items():
            found |= Q(**{f"{name}__isnull": True}) & self._has_value(name, value)
        return self._all.filter(found).exists()

    def end_of(self, after: Any, size: int) -> tuple[Any, bool] | None:  # noqa: ANN401 - a key is of any type
        """Return the last key of the next batch, and whether that has all its rows; None where nothing is left.

        Args:
            after: the last key of the one before; None for the first.
            size: how many rows it may have.
        """
        keys = self._between(after, None).values_list("pk", flat=True)
        for key in keys.order_by("pk")[size - 1 : size]:
            return key, True
        for key in keys.order_by("-pk")[:1]:
            return key, False
        return None

    def fill(self, after: Any = None, until: Any = None) -> int:  # noqa: ANN401 - as above
        """Fill the rows behind one key up to another one, and return how many were."""
        return self._between(after, until).filter(self._where()).update(**self._values())

    def _between(self, after: Any, until: Any) -> QuerySet[Any]:  # noqa: ANN401 - as above
        first = self._model._meta.pk_fields[0].attname  # noqa: SLF001 - public
        rows = self._all
        for lookup, wide, key in (("gt", "gte", after), ("lte", "lte", until)):
            if isinstance(key, tuple):
                # Not every server finds rows by an index for a comparison of rows; this it does.
                rows = rows.filter(**{f"{first}__{wide}": key[0]})
            if key is not None:
                rows = rows.filter(**{f"pk__{lookup}": key})
        return rows

    def _where(self) -> Q:
        if self._operation.where is not None:
            return self._operation.where
        found = Q()
        for name in self._operation.values:
            found |= Q(**{f"{name}__isnull": True})
        return found

    def _values(self) -> dict[str, Any]:
        values = self._operation.values
        if not self.can_tell or len(values) == 1:
            return values
        return {name: self._unless_there(name, value) for name, value in values.items()}

    def _unless_there(self, name: str, value: Any) -> Case:  # noqa: ANN401 - a value or an expression
        field: Any = self._model._meta.get_field(name)  # noqa: SLF001 - public
        then = value if hasattr(value, "resolve_expression") else Value(value, output_field=field)
        return Case(When(**{f"{name}__isnull": True}, then=then), default=F(name), output_field=field)

    def _has_value(self, name: str, value: Any) -> Q:  # noqa: ANN401 - as above
        if isinstance(value, Value) or not hasattr(value, "resolve_expression"):
            return Q()
        field: Any = self._model._meta.get_field(name)  # noqa: SLF001 - public
        return Q(IsNull(ExpressionWrapper(value, output_field=field), False))  # noqa: FBT003 - a lookup's right side
