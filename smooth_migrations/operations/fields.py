"""Fields of the tables' state, and what they are called in the database."""

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.state import ProjectState
from django.db.models import NOT_PROVIDED, Field, ForeignKey, OneToOneField

from smooth_migrations.operations.base import AnyField, ModelKey

__all__ = ["clone", "column_of", "default_of", "field_of", "has_column", "in_database", "is_alike", "table_of"]


def field_of(state: ProjectState, key: ModelKey, name: str) -> AnyField | None:
    """Return a field of a state, where both it and its model are there."""
    model = state.models.get(key)
    return model.fields.get(name) if model is not None else None


def clone(field: AnyField, **changed: Any) -> AnyField:  # noqa: ANN401 - a field's own arguments
    """Return a field like this one but for some of its arguments; NOT_PROVIDED leaves one out."""
    _, _, arguments, named = field.deconstruct()
    named.update(changed)
    kind = type(field)
    if isinstance(field, OneToOneField) and changed.get("unique") is False:
        # It is a foreign key that is always unique.
        kind = ForeignKey
        named.pop("parent_link", None)
    made: AnyField = kind(*arguments, **{key: value for key, value in named.items() if value is not NOT_PROVIDED})
    return made


def is_alike(one: AnyField, other: AnyField) -> bool:
    """Return whether two fields are the same but for their names."""
    return one.deconstruct()[1:] == other.deconstruct()[1:]


def in_database(field: AnyField) -> tuple[str, Sequence[Any], dict[str, Any]]:
    """Return what the database knows of a field but for its name; of two that are equal in it, neither changes it."""
    _, path, arguments, named = field.deconstruct()
    return path, arguments, {name: value for name, value in named.items() if name not in field.non_db_attrs}


def has_column(field: AnyField) -> bool:
    """Return whether a field is kept in a column of its model's table."""
    return not field.many_to_many and not getattr(field, "generated", False)


def table_of(state: ProjectState, key: ModelKey) -> str:
    """Return the name of a model's table."""
    return str(state.apps.get_model(*key)._meta.db_table)  # noqa: SLF001 - public


def default_of(field: AnyField, connection: BaseDatabaseWrapper) -> object:
    """Return the value that Django's schema editor gives to rows which have none; None where there is none."""
    relation: Any = field.remote_field
    if relation is not None and isinstance(relation.model, str) and field.has_default():
        # A relation that is not bound to classes cannot tell an instance from a key; migrations have keys alone.
        key: object = Field.get_default(field)
        return key
    editor: Any = connection.schema_editor()
    value: object = editor._effective_default(field)  # noqa: SLF001 - not as it is sent to the database
    return value


def column_of(state: ProjectState, key: ModelKey, name: str) -> str:
    """Return a field's column, as `table.column`."""
    meta = state.apps.get_model(*key)._meta  # noqa: SLF001 - public
    return f"{meta.db_table}.{meta.get_field(name).column}"
