"""What must not be done to a table, or to what it refers to, beside a half that is held back."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from django.db.migrations.operations import (
    AddField,
    AlterField,
    AlterModelTable,
    AlterUniqueTogether,
    CreateModel,
    DeleteModel,
    RemoveConstraint,
    RenameField,
    RenameModel,
)
from django.db.migrations.operations.base import Operation
from django.db.models import UniqueConstraint

from smooth_migrations.operations import CannotSplit, Place, Split
from smooth_migrations.operations.base import ModelKey
from smooth_migrations.operations.constraints import SplitAddConstraint, SplitUniqueTogether
from smooth_migrations.operations.fields import field_of, in_database
from smooth_migrations.operations.rename_field import SplitRenameField
from smooth_migrations.reversibility import database_parts
from smooth_migrations.touched import model_of, touched

__all__ = [
    "Held",
    "let_go",
    "refuse_beside_old_columns",
    "refuse_beside_view",
    "refuse_old_column",
    "refuse_renamed_key",
    "refuse_taken_name",
]

_APART = "deploy the two one after the other, each with its own finalise, or set expand_contract = false"

# The server changes no type of a column that a view has, and the view would not follow another name.
_NOT_BESIDE_VIEWS = (AlterField, AlterModelTable, DeleteModel, RenameField, RenameModel)

Held = tuple[tuple[ModelKey | None, str | None], Split]
"""A half that is held back, with what its operation touches."""


def refuse_beside_view(
    operation: Operation, place: Place, renamed: AbstractSet[ModelKey], in_halves: AbstractSet[ModelKey | None]
) -> None:
    """Refuse what a view under a table's old name does not allow, or would be made without.

    Args:
        operation: what would be done.
        place: where it stands.
        renamed: the models whose tables have such a view.
        in_halves: those of which something is held back.

    Raises:
        CannotSplit: it is of that kind.
    """
    key = (place.app_label, model_of(operation) or "")
    if key in renamed and isinstance(operation, _NOT_BESIDE_VIEWS):
        raise CannotSplit(f"{operation.describe()}: its table has just been renamed", hint=_APART)
    if isinstance(operation, RenameModel | AlterModelTable) and key in in_halves:
        raise CannotSplit(f"{operation.describe()}: something else of its table is held back", hint=_APART)


def refuse_old_column(
    renames: SplitRenameField, operation: Operation, held: Sequence[Held], let_go: AbstractSet[tuple[ModelKey, str]]
) -> None:
    """Refuse to keep the old name of a column of which, or of whose constraints, something is held back already.

    Args:
        renames: the halves.
        operation: that they are of.
        held: what is held back.
        let_go: the fields that the same deploy has let go of something unique of.

    Raises:
        CannotSplit: something is, or rows are no longer looked for by a unique column of the old name.
    """
    if any((renames.key, name) in let_go for name in renames.names):
        raise CannotSplit(f"{operation.describe()}: something unique that it was in has just been removed", hint=_APART)
    for (model, name), halves in held:
        is_constraint = model == renames.key and isinstance(halves, SplitAddConstraint | SplitUniqueTogether)
        is_column = (model == renames.key and name in renames.names) or (model, name) in renames.targets
        if is_constraint or is_column:
            raise CannotSplit(f"{operation.describe()}: held back is {halves.description}", hint=_APART)


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
                raise CannotSplit(f"{part.describe()}: {column} is kept equal to {renames.column.new}", hint=_APART)


def refuse_renamed_key(operation: Operation, place: Place, held: Sequence[Held]) -> None:
    """Refuse another name for a column by which deletes of the release before are followed.

    Raises:
        CannotSplit: it is one of a foreign key that has just been made, or that such a one refers to.
    """
    if not isinstance(operation, RenameField):
        return
    meta: Any = place.rendered(operation.model_name)._meta  # noqa: SLF001 - public
    renamed = (meta.db_table, getattr(meta.get_field(operation.old_name), "column", None))
    for _, halves in held:
        for key in halves.keys:
            if renamed in ((key.table, key.column), (key.parent, key.parent_column)):
                raise CannotSplit(f"{operation.describe()}: held back is {halves.description}", hint=_APART)


def let_go(operation: Operation, place: Place) -> Iterator[tuple[ModelKey, str]]:
    """Yield the fields that are in something unique which an operation removes: all, where it has expressions. Pure."""
    for part in database_parts(operation):
        model, name = touched(part, place.app_label)
        if model is None or model not in place.schema.models:
            continue
        state = place.schema.models[model]
        gone: list[Iterable[str]] = []
        if isinstance(part, RemoveConstraint):
            found: Any = state.options.get("constraints", ())
            named = [each for each in found if each.name == part.name and isinstance(each, UniqueConstraint)]
            gone = [state.fields if each.expressions else each.fields for each in named]
        elif isinstance(part, AlterUniqueTogether):
            now: Any = state.options.get("unique_together") or ()
            gone = [*({*map(tuple, now)} - {*map(tuple, part.unique_together or ())})]
        elif isinstance(part, AlterField) and name is not None:
            field = field_of(place.schema, model, name)
            gone = [(name,)] if field is not None and field.unique and not part.field.unique else []
        yield from ((model, each) for fields in gone for each in fields)


def refuse_taken_name(operation: Operation, place: Place, renamed: AbstractSet[ModelKey]) -> None:
    """Refuse to give a model the name of one that the release still running uses.

    Args:
        operation: what may make or rename one.
        place: where it stands.
        renamed: the models that were renamed so far.

    Raises:
        CannotSplit: it takes such a name.
    """
    if not isinstance(operation, CreateModel | RenameModel):
        return
    name = operation.new_name_lower if isinstance(operation, RenameModel) else operation.name_lower
    if name == model_of(operation) and not isinstance(operation, CreateModel):
        return
    is_renamed = (place.app_label, name) in renamed
    if is_renamed or place.model(name) is not None:
        raise CannotSplit(
            f"{operation.describe()}: its name is still that of a model that has been "
            + ("renamed" if is_renamed else "removed"),
            hint="finalise first, or give the new model another name",
        )


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
    if isinstance(part, RemoveConstraint | AlterUniqueTogether):
        return any(each in renames.names for _, each in let_go(part, place))
    return name is None or name in renames.names or renames.column.old in _columns(part, place)


def _columns(part: Operation, place: Place) -> set[str]:
    """Return the columns of a model behind what may give it one of another name."""
    if not isinstance(part, AddField | AlterField | RenameField):
        return set()
    after = place.schema.clone()
    part.state_forwards(place.app_label, after)
    fields = after.apps.get_model(place.app_label, part.model_name)._meta.local_concrete_fields  # noqa: SLF001 - public
    return {str(field.column) for field in fields}
