"""Rows that a contract half could not take, found before it is tried."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import BooleanField, Count, Exists, ExpressionWrapper, OuterRef, Q, QuerySet
from django.db.models.functions import Length

from smooth_migrations.operations.base import AnyField, Obstacle
from smooth_migrations.operations.fields import default_of

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["dangling", "duplicates", "nulls", "too_long", "unfilled", "unfit", "violations"]

_SAMPLE = 5


def nulls(connection: BaseDatabaseWrapper, model: "type[Model]", name: str) -> Iterator[Obstacle]:
    """Yield the rows in which a field is NULL. Only reads."""
    rows = _rows(connection, model).filter(**{f"{name}__isnull": True})
    yield from _told(rows, f"{_column(model, name)} is NULL")


def unfilled(connection: BaseDatabaseWrapper, model: "type[Model]", name: str, field: AnyField) -> Iterator[Obstacle]:
    """Yield the rows in which a field is NULL that its default cannot fill. Only reads.

    Args:
        connection: the database's.
        model: as its table is now.
        name: of the field.
        field: as it is to be.
    """
    default = default_of(field, connection)
    if default is not None and field.unique:
        is_empty_or_alike = Q(**{f"{name}__isnull": True}) | Q(**{name: default})
        if _rows(connection, model).filter(is_empty_or_alike).count() > 1:
            # It is one value for all of them.
            default = None
    if default is None:
        yield from nulls(connection, model, name)


def dangling(connection: BaseDatabaseWrapper, model: "type[Model]", names: Sequence[str]) -> Iterator[Obstacle]:
    """Yield the rows of which a foreign key refers to nothing. Only reads.

    Args:
        connection: the database's.
        model: whose rows.
        names: of its foreign keys.
    """
    for name in names:
        relation: Any = model._meta.get_field(name)  # noqa: SLF001 - public
        target = relation.target_field
        parents = _rows(connection, target.model).filter(**{target.attname: OuterRef(relation.attname)})
        rows = _rows(connection, model).filter(~Exists(parents), **{f"{relation.attname}__isnull": False})
        yield from _told(rows, f"{_column(model, name)} refers to what is not there any more")


def too_long(connection: BaseDatabaseWrapper, model: "type[Model]", name: str, limit: int) -> Iterator[Obstacle]:
    """Yield the rows in which a text is longer than so many characters. Only reads."""
    rows = _rows(connection, model).alias(smooth_length=Length(name)).filter(smooth_length__gt=limit)
    yield from _told(rows, f"{_column(model, name)} is longer than {limit} characters")


def unfit(
    connection: BaseDatabaseWrapper,
    model: "type[Model]",
    name: str,
    limits: tuple[int | None, int | None] | tuple[Decimal, Decimal],
) -> Iterator[Obstacle]:
    """Yield the rows in which a number is too small or too large. Only reads."""
    least, most = limits
    outside = Q(pk__in=[])
    if least is not None:
        outside |= Q(**{f"{name}__lt": least})
    if most is not None:
        outside |= Q(**{f"{name}__gt": most})
    yield from _told(_rows(connection, model).filter(outside), f"{_column(model, name)} is out of range")


def violations(
    connection: BaseDatabaseWrapper,
    model: "type[Model]",
    condition: Any,  # noqa: ANN401 - a Q or an expression
    what: str,
) -> Iterator[Obstacle]:
    """Yield the rows for which a condition does not hold; one that is unknown because of a NULL does. Only reads."""
    holds = ExpressionWrapper(condition, output_field=BooleanField())
    yield from _told(_rows(connection, model).alias(smooth_holds=holds).filter(smooth_holds=False), what)


def duplicates(
    connection: BaseDatabaseWrapper, model: "type[Model]", names: Sequence[str], condition: Q | None = None
) -> Iterator[Obstacle]:
    """Yield the rows that have the same values as an earlier one. Only reads.

    Args:
        connection: the database's.
        model: whose rows.
        names: of the fields; a row with NULL in one of them is like no other.
        condition: which rows count; None for all.
    """
    rows = _rows(connection, model).filter(**{f"{name}__isnull": False for name in names})
    if condition is not None:
        rows = rows.filter(condition)
    groups = rows.order_by().values(*names).annotate(smooth_count=Count("pk")).filter(smooth_count__gt=1)
    found = groups.count()
    if found == 0:
        return
    # Of each group all but one are too many.
    surplus = sum(row["smooth_count"] - 1 for row in groups.values("smooth_count").iterator())
    sample = tuple("/".join(str(row[name]) for name in names) for row in groups[:_SAMPLE])
    columns = ", ".join(_column(model, name) for name in names)
    table = model._meta.db_table  # noqa: SLF001 - public
    yield Obstacle(f"{columns} is the same in several rows", table, surplus, sample, _query(groups))


def _rows(connection: BaseDatabaseWrapper, model: "type[Model]") -> QuerySet[Any]:
    return model._base_manager.using(connection.alias)  # noqa: SLF001 - public, for such uses


def _told(rows: QuerySet[Any], what: str) -> Iterator[Obstacle]:
    count = rows.count()
    if count:
        keys = rows.order_by("pk").values_list("pk", flat=True)
        table = rows.model._meta.db_table  # noqa: SLF001 - public
        yield Obstacle(what, table, count, tuple(keys[:_SAMPLE]), _query(keys), found=rows)


def _query(rows: QuerySet[Any]) -> str:
    return str(rows.query)


def _column(model: "type[Model]", name: str) -> str:
    meta = model._meta  # noqa: SLF001 - public
    columns = {field.name: field.column for field in meta.concrete_fields}
    return f"{meta.db_table}.{columns[name]}"
