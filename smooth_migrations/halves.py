"""Operations of a plan that run in halves, or beside what is held back."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.contract_queue import Queued, add, strike_out
from smooth_migrations.files import digest_of
from smooth_migrations.operations.base import CannotSplit, Split
from smooth_migrations.reversibility import is_plain_kind

__all__ = ["Placed", "expanded", "install", "is_split", "is_void", "originals", "placed_of", "split_of"]


@dataclass(frozen=True, slots=True)
class Placed:
    """An operation of a migration, between two states of the tables.

    Args:
        migration: whose.
        number: which, from 0.
        operation: as it is in its file.
        split: its halves; None where it runs as a whole.
        states: of the tables: before it, after each operation of its expand half, and after it; one alone where
            nothing is to be done.
    """

    migration: Migration
    number: int
    operation: Operation
    split: Split | None
    states: tuple[ProjectState, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        """What it is called in the queue."""
        return self.migration.app_label, self.migration.name, self.number

    @property
    def is_void(self) -> bool:
        """Whether nothing is to be done to the database."""
        return self.split is None and len(self.states) == 1

    def hindrances(self, connection: BaseDatabaseWrapper) -> Iterator[CannotSplit]:
        """Yield what of this database keeps its expand half from being done. Only reads."""
        if self.split is not None:
            for reason in self.split.hindrances(connection):
                yield CannotSplit(f"{self.operation.describe()}: {reason}")
            yield from self.split.unready(connection)

    def forwards(self, editor: BaseDatabaseSchemaEditor) -> None:
        """Run it, or its expand half."""
        app_label = self.migration.app_label
        if self.is_void:
            return
        if self.split is None:
            self.operation.database_forwards(app_label, editor, self.states[0], self.states[-1])
            return
        for number, part in enumerate(self.split.expand()):
            part.database_forwards(app_label, editor, self.states[number], self.states[number + 1])

    def backwards(self, editor: BaseDatabaseSchemaEditor) -> None:
        """Run it backwards, or its expand half."""
        app_label = self.migration.app_label
        if self.is_void:
            return
        if self.split is None:
            self.operation.database_backwards(app_label, editor, self.states[-1], self.states[0])
            return
        for number, part in reversed([*enumerate(self.split.expand())]):
            part.database_backwards(app_label, editor, self.states[number + 1], _afresh(self.states[number], editor))

    def queued(self, run_id: str) -> Queued:
        """Return the row for the half that is held back."""
        if self.split is None:
            raise TypeError(f"{self.operation.describe()} is not split")
        return Queued(run_id, *self.key, self.split.kind, self.split.description, digest=digest_of(self.migration))


def _afresh(state: ProjectState, editor: BaseDatabaseSchemaEditor) -> ProjectState:
    """Return a state whose fields are younger than those that are at work: a remade table of SQLite has them last."""
    if editor.connection.vendor != "sqlite":
        return state
    models = {key: model.clone() for key, model in state.models.items()}
    return ProjectState(models=models, real_apps=state.real_apps)


class _InHalves:
    """What an operation of a plan becomes: the same, run between two states of the tables."""

    placed: Placed
    run_id: str

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Run it, or its expand half, and hold the other back."""
        del app_label, from_state, to_state
        self.placed.forwards(schema_editor)
        if self.placed.split is not None:
            hold_back = getattr(schema_editor, "hold_back", partial(add, schema_editor.connection))
            hold_back(self.placed.queued(self.run_id))

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Run it backwards, or its expand half, and hold nothing back any more."""
        del app_label, from_state, to_state
        self.placed.backwards(schema_editor)
        if self.placed.split is not None:
            strike = getattr(schema_editor, "strike_out", partial(strike_out, schema_editor.connection))
            strike(self.placed.queued(self.run_id))


def _class_in_halves(kind: type[Operation]) -> type[Operation]:
    # Whoever asks an operation what it is gets the same answer as before.
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(kind.__name__, (_InHalves, kind), names)


def install(placed: Sequence[Placed], run_id: str) -> None:
    """Let migrations run as they are placed. Operations are shared by all of a process, so theirs become copies.

    Args:
        placed: operations of migrations that are about to be moved.
        run_id: the run that holds their contract halves back.
    """
    for item in placed:
        if item.split is None and not is_plain_kind(item.operation):
            continue
        operation = copy(item.operation)
        operation.__class__ = _class_in_halves(type(item.operation))
        operation.__dict__.update(placed=item, run_id=run_id)
        operations: Any = item.migration.operations
        [place] = (number for number, each in enumerate(operations) if _original(each) is item.operation)
        operations[place] = operation


def originals(migration: Migration) -> list[Operation]:
    """Return a migration's operations as they are in its file, without those that receivers of pre_migrate put in."""
    in_file = {id(operation) for operation in type(migration).operations}
    found = [_original(each) for each in migration.operations]
    return [each for each in found if id(each) in in_file] if in_file else found


def _original(operation: Operation) -> Operation:
    return operation.placed.operation if isinstance(operation, _InHalves) else operation


def is_split(operation: Operation) -> bool:
    """Return whether an operation of a plan runs in halves."""
    return isinstance(operation, _InHalves) and operation.placed.split is not None


def placed_of(operation: Operation) -> Placed | None:
    """Return where an operation of a plan is placed; None where it runs between Django's own states."""
    return operation.placed if isinstance(operation, _InHalves) else None


def is_void(operation: Operation) -> bool:
    """Return whether an operation of a plan has nothing to do to the database."""
    return isinstance(operation, _InHalves) and operation.placed.is_void


def split_of(migration: Migration) -> Iterator[Split]:
    """Yield the halves of a migration that is about to run, in order."""
    for operation in migration.operations:
        if isinstance(operation, _InHalves) and operation.placed.split is not None:
            yield operation.placed.split


def expanded(migration: Migration) -> Iterator[Operation]:
    """Yield what of a migration is done at the deploy."""
    for operation in migration.operations:
        if isinstance(operation, _InHalves) and operation.placed.split is not None:
            yield from operation.placed.split.expand()
        elif not is_void(operation):
            yield operation
