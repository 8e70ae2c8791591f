"""What an operation may be given: whatever is wrong is told in one message, with its place and remedy."""

from math import isfinite
from typing import TYPE_CHECKING, Any

from django.core.exceptions import FieldDoesNotExist

from smooth_migrations.errors import SmoothMigrationsError

if TYPE_CHECKING:
    from django.apps.registry import Apps
    from django.db.models import Model

    from smooth_migrations.backfill.operation import Backfill

__all__ = ["BadBackfill", "check", "model_of"]

_LIMITS = ("batch_size", "max_batch_size", "batch_ms", "rows_per_second", "max_replication_lag_s")
_WHOLE = ("batch_size", "max_batch_size")


class BadBackfill(SmoothMigrationsError, ValueError):  # noqa: N818 - named by what it is
    """An operation was given what it cannot do; nothing was filled."""


def check(operation: "Backfill") -> None:
    """Look at what can be told of the arguments without the models.

    Raises:
        BadBackfill: something is wrong with them.
    """
    if not str(operation.model).rpartition(".")[2].isidentifier():
        raise _bad(operation, "that is no model's name", "say 'Model', or 'app.Model'")
    if not operation.values:
        raise _bad(operation, "no field is named", "say {'field': expression}")
    if operation.where is not None and not hasattr(operation.where, "resolve_expression"):
        raise _bad(operation, "where is no condition", "say where=Q(…)")
    for name in _LIMITS:
        limit = getattr(operation, name)
        if limit is not None and not _is_positive(limit):
            raise _bad(operation, f"{name} is {limit!r}", "it must be a number above 0")
        if name in _WHOLE and not isinstance(limit, int):
            raise _bad(operation, f"{name} is {limit!r}", "it must be a whole number")
    if operation.max_load is not None and not _is_load(operation.max_load):
        raise _bad(operation, f"max_load is {operation.max_load!r}", "say max_load=('SELECT …', limit)")


def model_of(operation: "Backfill", app_label: str, apps: "Apps") -> "type[Model]":
    """Return the model whose columns are filled, as it is before the migration.

    Raises:
        BadBackfill: there is none, or a field of it cannot be filled.
    """
    app, _, name = operation.model.rpartition(".")
    try:
        model: type[Model] = apps.get_model(app or app_label, name)
    except LookupError as error:
        remedy = "name one that there is before this migration, and depend on the migration that makes it"
        raise _bad(operation, f"there is no model {app or app_label}.{name}", remedy) from error
    for field in operation.values:
        _check_field(operation, model, field)
    return model


def _check_field(operation: "Backfill", model: "type[Model]", name: str) -> None:
    options = model._meta  # noqa: SLF001 - Django's public name for it
    try:
        field: Any = options.get_field(name)
    except FieldDoesNotExist as error:
        named = ", ".join(sorted(each.name for each in options.concrete_fields))
        raise _bad(operation, f"there is no field {name}", f"before this migration there are {named}") from error
    if field not in options.concrete_fields or field.generated:
        raise _bad(operation, f"{name} has no column to fill", "name a field that has one")
    if field.primary_key or field in options.pk_fields:
        raise _bad(operation, f"{name} is of the primary key", "batches go along that: change it in a migration before")
    if operation.where is None and not field.null:
        remedy = "say by where=Q(…) which rows are to be filled, and no longer once they are"
        raise _bad(operation, f"{name} is never NULL", remedy)


def _bad(operation: "Backfill", what: str, remedy: str) -> BadBackfill:
    fields = ", ".join(map(repr, operation.values))
    return BadBackfill(f"Backfill({operation.model!r}, {{{fields}}}): {what}: {remedy}")


def _is_positive(limit: object) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool) and isfinite(limit) and limit > 0


def _is_load(given: object) -> bool:
    match given:
        case (str(), int() | float()) | [str(), int() | float()]:
            return True
    return False
