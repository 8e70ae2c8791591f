"""Tables of a project's state, told without rendering a model. Pure."""

from typing import Any, TypeAlias

from django.conf import settings
from django.db.migrations.operations import RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.fields import FieldOperation
from django.db.migrations.operations.models import IndexOperation, ModelOperation
from django.db.migrations.state import ModelState, ProjectState
from django.db.migrations.utils import resolve_relation

from smooth_migrations.operations.base import ModelKey

__all__ = ["AnyField", "auto_table_of", "has_table", "models_of", "referred", "referrers", "refers_to", "table_of"]

# The stubs' Field has neither db_index nor a model by name to refer to, as fields in a state have.
AnyField: TypeAlias = Any


def models_of(operation: Operation) -> tuple[str, ...]:
    """Return the names of the models that an operation changes, before it and after it."""
    if isinstance(operation, RenameModel):
        return operation.old_name_lower, operation.new_name_lower
    if isinstance(operation, ModelOperation):
        return (operation.name_lower,)
    if isinstance(operation, FieldOperation | IndexOperation):
        return (str(getattr(operation, "model_name", "")).lower(),)
    return ()


def has_table(model: ModelState) -> bool:
    """Return whether migrations make and change a model's table."""
    return bool(model.options.get("managed", True)) and not model.options.get("proxy") and not _is_swapped(model)


def table_of(model: ModelState) -> str:
    """Return the name of a model's table."""
    return str(model.options.get("db_table") or f"{model.app_label}_{model.name.lower()}").strip('"')


def auto_table_of(model: ModelState, name: str, field: AnyField) -> str:
    """Return the name of the table that a relation to many has of its own."""
    return str(getattr(field, "db_table", None) or f"{table_of(model)}_{name}")


def referred(field: AnyField, model: ModelState) -> ModelKey:
    """Return the model that a relation refers to."""
    return resolve_relation(field.remote_field.model, model.app_label, model.name_lower)


def referrers(key: ModelKey, state: ProjectState) -> list[tuple[ModelKey, AnyField]]:
    """Return the relations that refer to a model."""
    return [
        (other, field)
        for other, model in state.models.items()
        for field in model.fields.values()
        if field.remote_field is not None and referred(field, model) == key
    ]


def refers_to(field: AnyField, name: str, column: AnyField) -> bool:
    """Return whether a relation to a field's model refers by that field."""
    to = getattr(field.remote_field, "field_name", None)
    return bool(column.primary_key) if to is None else to == name


def _is_swapped(model: ModelState) -> bool:
    setting = model.options.get("swappable")
    return (
        setting is not None
        and str(getattr(settings, setting, None)).lower() != f"{model.app_label}.{model.name}".lower()
    )
