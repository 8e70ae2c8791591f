"""What an operation of a migration changes, and what must be left alone while a half of one is held back."""

from collections.abc import Set as AbstractSet
from typing import Any

from django.db.migrations.operations import (
    AddConstraint,
    AddField,
    AddIndex,
    AlterField,
    AlterModelManagers,
    AlterModelOptions,
    AlterModelTableComment,
    AlterUniqueTogether,
    CreateModel,
    RenameField,
    RenameModel,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.utils import resolve_relation

from smooth_migrations.operations import Place
from smooth_migrations.operations.base import ModelKey
from smooth_migrations.reversibility import is_plain_kind

__all__ = ["is_here", "kept", "model_of", "refers_to", "touched"]


def is_here(operation: Operation, place: Place) -> bool:
    """Return whether an operation is for this database: the routers and the model itself may say that it is not."""
    model = place.rendered(model_of(operation) or "")
    return bool(operation.allow_migrate_model(place.connection.alias, model))


def model_of(operation: Operation) -> str | None:
    """Return the name of the model whose table an operation changes, as it is before it. Pure."""
    if isinstance(operation, RenameModel):
        return operation.old_name_lower
    name = getattr(operation, "model_name", None) or getattr(operation, "name", None)
    return name.lower() if isinstance(name, str) else None


def touched(operation: Operation, app_label: str) -> tuple[ModelKey | None, str | None]:
    """Return the model that an operation changes, and the field or the constraint; None where it is all of it. Pure."""
    model = model_of(operation)
    if model is None or not is_plain_kind(operation):
        return None, None
    name: str | None = None
    if isinstance(operation, AddConstraint):
        name = operation.constraint.name
    elif isinstance(operation, AddIndex):
        name = operation.index.name
    elif hasattr(operation, "model_name"):
        name = getattr(operation, "old_name", None) or getattr(operation, "name", None)
    elif isinstance(operation, AlterModelOptions | AlterModelManagers | AlterUniqueTogether | AlterModelTableComment):
        name = type(operation).__name__
    return (app_label, model), name


def kept(operation: Operation, app_label: str) -> list[tuple[ModelKey | None, str | None]]:
    """Return what nothing else may touch while a half of an operation is held back, as `touched` does. Pure."""
    model, name = touched(operation, app_label)
    if isinstance(operation, CreateModel):
        # Its foreign keys alone wait for anything.
        return [(model, name) for name, field in operation.fields if getattr(field, "remote_field", None) is not None]
    if isinstance(operation, RenameField):
        return [(model, name), (model, operation.new_name)]
    if isinstance(operation, RenameModel):
        return [(model, name), ((app_label, operation.new_name_lower), name)]
    return [(model, name)]


def refers_to(operation: Operation, app_label: str) -> AbstractSet[ModelKey]:
    """Return the models that new fields refer to, or altered ones, also from a table of their own. Pure."""
    fields: list[Any] = []
    if isinstance(operation, CreateModel):
        fields = [field for _name, field in operation.fields]
    elif isinstance(operation, AddField | AlterField):
        fields = [operation.field]
    own = (app_label, model_of(operation) or "")
    relations = [field.remote_field for field in fields if getattr(field, "remote_field", None) is not None]
    parents = {resolve_relation(relation.model, *own) for relation in relations}
    return parents | ({own} if any(field.many_to_many for field in fields) else set())
