"""What an operation renames: which table and column of now is which of before."""

# ruff: noqa: SLF001 - Model._meta is documented, whatever its name

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db.migrations.operations import RenameField, RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState
from django.db.models import ManyToManyField, Model

from smooth_migrations.reversibility import database_parts

__all__ = ["Renames", "renames_of"]

if TYPE_CHECKING:
    _Many = ManyToManyField[Any, Any]


@dataclass(frozen=True, slots=True)
class Renames:
    """Names after an operation, and what they were before it.

    Args:
        tables: old names by new ones.
        columns: old names by (old table, new column).
    """

    tables: dict[str, str] = field(default_factory=dict)
    columns: dict[tuple[str, str], str] = field(default_factory=dict)


def renames_of(operation: Operation, app_label: str, before: ProjectState, after: ProjectState) -> Renames:
    """Compare the models of two states, through what an operation says it renames.

    Args:
        operation: what ran between them, forwards or backwards.
        app_label: of its migration.
        before: where it began.
        after: where it would have ended.
    """
    found = Renames()
    models, fields = _said(operation, app_label)
    for key, old_model in _models(before):
        new_key = models.get(key, key)
        if new_key not in after.models:
            new_key = key
        if new_key not in after.models:
            continue
        new_model = after.apps.get_model(*new_key)
        _compare(found, old_model, new_model, fields if key[0] == app_label else {})
    return found


def _said(
    operation: Operation, app_label: str
) -> tuple[dict[tuple[str, str], tuple[str, str]], dict[tuple[str, str], str]]:
    models: dict[tuple[str, str], tuple[str, str]] = {}
    fields: dict[tuple[str, str], str] = {}
    for part in database_parts(operation):
        if isinstance(part, RenameModel):
            old, new = (app_label, part.old_name_lower), (app_label, part.new_name_lower)
            # Forwards or backwards: whichever of the two is there names the other.
            models |= {old: new, new: old}
        elif isinstance(part, RenameField):
            model = part.model_name_lower
            fields |= {(model, part.old_name): part.new_name, (model, part.new_name): part.old_name}
    return models, fields


def _models(state: ProjectState) -> Iterator[tuple[tuple[str, str], type[Model]]]:
    for app, name in state.models:
        yield (app, name), state.apps.get_model(app, name)


def _compare(found: Renames, old: type[Model], new: type[Model], fields: dict[tuple[str, str], str]) -> None:
    _pair_tables(found, old, new)
    names = {name: renamed for (model, name), renamed in fields.items() if model == old._meta.model_name}
    columns = {item.name: item for item in new._meta.local_fields}
    for item in old._meta.local_fields:
        other = columns.get(item.name) or columns.get(names.get(item.name, ""))
        if other is not None and other.column != item.column:
            found.columns[old._meta.db_table, str(other.column)] = str(item.column)
    many = {item.name: item for item in new._meta.local_many_to_many}
    for relation in old._meta.local_many_to_many:
        twin = many.get(relation.name) or many.get(names.get(relation.name, ""))
        if twin is not None:
            _compare_through(found, relation, twin)


def _compare_through(found: Renames, old: "_Many", new: "_Many") -> None:
    old_through, new_through = old.remote_field.through, new.remote_field.through
    if not (old_through and new_through and old_through._meta.auto_created and new_through._meta.auto_created):
        return
    _pair_tables(found, old_through, new_through)
    pairs = (
        (old.m2m_column_name(), new.m2m_column_name()),
        (old.m2m_reverse_name(), new.m2m_reverse_name()),
    )
    for mine, theirs in pairs:
        if mine != theirs:
            found.columns[old_through._meta.db_table, theirs] = mine


def _pair_tables(found: Renames, old: type[Model], new: type[Model]) -> None:
    if old._meta.db_table != new._meta.db_table:
        found.tables[new._meta.db_table] = old._meta.db_table
