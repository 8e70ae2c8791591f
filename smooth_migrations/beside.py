"""What must not be done to a table, or to what it refers to, beside a half that is held back."""

from collections.abc import Sequence
from typing import Any

from django.db.migrations.operations import (
    AddField,
    AlterField,
    AlterUniqueTogether,
    RemoveConstraint,
    RenameField,
)
from django.db.migrations.operations.base import Operation
from django.db.models import UniqueConstraint

from smooth_migrations.operations import CannotSplit, Place, Split
from smooth_migrations.operations.base import ModelKey
from smooth_migrations.operations.constraints import SplitAddConstraint, SplitUniqueTogether
from smooth_migrations.operations.fields import field_of, in_database
from smooth_migrations.operations.rename_field import SplitRenameField
from smooth_migrations.reversibility import database_parts
from smooth_migrations.touched import touched

__all__ = ["APART", "Held", "refuse_beside_old_columns", "refuse_old_column"]

APART = "deploy the two one after the other, each with its own finalise, or set expand_contract = false"

Held = tuple[tuple[ModelKey | None, str | None], Split]
"""A half that is held back, with what its operation touches."""


def refuse_old_column(renames: SplitRenameField, operation: Operation, held: Sequence[Held]) -> None:
    """Refuse to keep the old name of a column of which, or of whose constraints, something is held back already.

    Raises:
        CannotSplit: something is.
    """
    for (model, name), halves in held:
        is_constraint = model == renames.key and isinstance(halves, SplitAddConstraint | SplitUniqueTogether)
        is_column = (model == renames.key and name in renames.names) or (model, name) in renames.targets
        if is_constraint or is_column:
            raise CannotSplit(f"{operation.describe()}: held back is {halves.description}", hint=APART)


def refuse_beside_old_columns(operation: Operation, place: Place, held: Sequence[Held]) -> None:
    """Refuse what would change a column, or let go of its uniqueness, whose old name is kept as a second column.

    Raises:
        CannotSplit: it would, and the second column would not follow.
    """
    for _, renames in held:
        if not isinstance(renames, SplitRenameField):
            continue
        for part in database_parts(operation):
            if _changes(part, renames, place):
                column = f"{renames.column.table}.{renames.column.old}"
                raise CannotSplit(f"{part.describe()}: {column} is kept equal to {renames.column.new}", hint=APART)


def _changes(part: Operation, renames: SplitRenameField, place: Place) -> bool:
    model, name = touched(part, place.app_label)
    if model is None or (model != renames.key and (model, name) not in renames.targets):
        return False
    if isinstance(part, AlterField):
        field = field_of(place.schema, model, part.name)
        if field is not None and in_database(field) == in_database(part.field):
            return False
    if model != renames.key:
        return True
    if isinstance(part, RemoveConstraint):
        return _is_unique(part, renames, place)
    if isinstance(part, AlterUniqueTogether):
        now = place.schema.models[model].options.get("unique_together") or ()
        return any(renames.names & {*names} for names in now)
    return name is None or name in renames.names or renames.column.old in _columns(part, place)


def _is_unique(part: RemoveConstraint, renames: SplitRenameField, place: Place) -> bool:
    constraints: Any = place.schema.models[renames.key].options.get("constraints", ())
    return any(
        constraint.name == part.name
        and isinstance(constraint, UniqueConstraint)
        and (bool(constraint.expressions) or bool(renames.names & {*constraint.fields}))
        for constraint in constraints
    )


def _columns(part: Operation, place: Place) -> set[str]:
    """Return the columns of a model behind what may give it one of another name."""
    if not isinstance(part, AddField | AlterField | RenameField):
        return set()
    after = place.schema.clone()
    part.state_forwards(place.app_label, after)
    fields = after.apps.get_model(place.app_label, part.model_name)._meta.local_concrete_fields  # noqa: SLF001 - public
    return {str(field.column) for field in fields}
