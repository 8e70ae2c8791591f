"""What the operations of a plan have changed so far: nothing is made ready upon that. Pure."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Any, Final

from django.db.migrations.operations import AddIndex, AlterModelTable, CreateModel, DeleteModel, RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.fields import FieldOperation

from smooth_migrations.locks.tables import models_of

__all__ = ["Changes"]

_MOVING: Final = (AlterModelTable, CreateModel, DeleteModel, RenameModel)
_ANY: Final = "*"


class Changes:
    """The tables that were made, dropped or given another name, and the fields that were changed."""

    def __init__(self) -> None:
        self._moved: set[tuple[str, str]] = set()
        self._fields: dict[tuple[str, str], set[str]] = {}

    def note(self, app_label: str, operation: Operation) -> None:
        """Go past an operation."""
        for part in _parts(operation):
            keys = [(app_label, name) for name in models_of(part)]
            if isinstance(part, _MOVING):
                self._moved.update(keys)
            elif isinstance(part, FieldOperation):
                for key in keys:
                    self._fields.setdefault(key, set()).update(_fields(part))

    def have_moved(self, keys: AbstractSet[tuple[str, str]]) -> bool:
        """Return whether they have made, dropped or renamed the table of any of these models."""
        return not self._moved.isdisjoint(keys)

    def touch(self, app_label: str, operation: Operation) -> bool:
        """Return whether they have changed what an operation on a field, or on an index, begins with."""
        for key in ((app_label, name) for name in models_of(operation)):
            changed = self._fields.get(key, set())
            if key in self._moved or (changed and not _fields(operation).isdisjoint(changed | {_ANY})):
                return True
        return False


def _fields(operation: Any) -> set[str]:  # noqa: ANN401 - the stubs do not know what each kind has
    """Return the names of the fields that an operation on one, or on an index, is about."""
    if isinstance(operation, AddIndex):
        index: Any = operation.index
        if index.expressions or index.condition is not None:
            return {_ANY}
        return {name for name, _order in index.fields_orders} | {*index.include}
    return {name for each in ("name", "old_name", "new_name") if (name := getattr(operation, each, None))}


def _parts(operation: Operation) -> Iterator[Operation]:
    yield operation
    for part in (*getattr(operation, "database_operations", ()), *getattr(operation, "state_operations", ())):
        yield from _parts(part)
