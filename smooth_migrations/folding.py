"""Constraints and indexes that a migration takes away and makes anew, since a field of theirs gets another name.

So `makemigrations` writes it. Those of the column follow it when it is renamed: nothing is to be done to the database.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.migrations.operations import AddConstraint, AddIndex, RemoveConstraint, RemoveIndex, RenameField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.touched import model_of

__all__ = ["folded", "is_gone"]


def folded(
    operations: Sequence[Operation], app_label: str, schema: ProjectState, is_kept: Callable[[int, RenameField], bool]
) -> dict[int, Sequence[Operation]]:
    """Return by their numbers the operations that leave the database as it is, with what moves its state.

    Args:
        operations: of a migration.
        app_label: of it.
        schema: the state of the tables before it.
        is_kept: whether a rename, by its number, is one behind which a column has both names.
    """
    found: dict[int, Sequence[Operation]] = {}
    for number, removes in enumerate(operations):
        if not isinstance(removes, RemoveConstraint | RemoveIndex):
            continue
        names: dict[str, str] = {}
        for later, part in enumerate(operations[number + 1 :], number + 1):
            if model_of(part) != model_of(removes):
                continue
            if isinstance(part, RenameField) and is_kept(later, part):
                names[part.old_name] = part.new_name
            elif isinstance(part, AddConstraint | AddIndex) and _of(part).name == removes.name:
                if _renamed(removes, app_label, schema, names) == _of(part).deconstruct():
                    found |= {number: (), later: (removes, part)}
                break
    return found


def is_gone(operation: Operation, app_label: str, schema: ProjectState) -> bool:
    """Return whether an operation removes a constraint that is not there, since it was held back.

    Args:
        operation: which.
        app_label: of its migration.
        schema: the state of the tables before it.
    """
    return isinstance(operation, RemoveConstraint) and _found(operation, app_label, schema) is None


def _of(part: AddConstraint | AddIndex) -> Any:  # noqa: ANN401 - Django's stubs have no kind for both
    return part.constraint if isinstance(part, AddConstraint) else part.index


def _renamed(
    removes: RemoveConstraint | RemoveIndex, app_label: str, schema: ProjectState, names: Mapping[str, str]
) -> object:
    """Return what an operation removes, with other names for its fields; None where none of them gets one."""
    item = _found(removes, app_label, schema)
    if item is None:
        return None
    path, arguments, named = item.deconstruct()
    changed = {key: _each(named[key], names) for key in ("fields", "include") if key in named}
    return (path, arguments, {**named, **changed}) if changed and names else None


def _found(removes: RemoveConstraint | RemoveIndex, app_label: str, schema: ProjectState) -> Any:  # noqa: ANN401 - as above
    """Return the constraint or the index that an operation removes; None where it is not there."""
    model = schema.models.get((app_label, removes.model_name.lower()))
    option = "constraints" if isinstance(removes, RemoveConstraint) else "indexes"
    items: Any = model.options.get(option, ()) if model is not None else ()
    return next((item for item in items if item.name == removes.name), None)


def _each(fields: Sequence[str], names: Mapping[str, str]) -> Sequence[str]:
    # An index has a minus before a field by which it descends.
    found = ["-" * name.startswith("-") + names.get(name.lstrip("-"), name.lstrip("-")) for name in fields]
    return type(fields)(found)  # type: ignore[call-arg]  # a list or a tuple
