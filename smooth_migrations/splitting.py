"""Which operations of a plan run in halves, and the state of the tables between them.

Django's state moves on as if each operation had run as a whole. The tables' own state, which the expand halves leave,
is kept beside it: from there the next operation on a table goes on, so that a table of SQLite which is remade keeps the
column that Django has removed.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass, field, replace

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import (
    AddField,
    AlterModelTable,
    CreateModel,
    RemoveField,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations import beside
from smooth_migrations.conflicts import PendingConflict, refuse_later, refuse_missing, refuse_unrecorded
from smooth_migrations.contract_queue import Queued, read_queue
from smooth_migrations.files import digest_of
from smooth_migrations.folding import folded, is_gone
from smooth_migrations.halves import Placed, originals
from smooth_migrations.locks.tables import models_of
from smooth_migrations.operations import CannotSplit, Place, Split, may_split, split
from smooth_migrations.operations.base import ModelKey
from smooth_migrations.operations.old_names import Renamed
from smooth_migrations.operations.rename_field import SplitRenameField
from smooth_migrations.operations.rename_table import SplitRename
from smooth_migrations.reversibility import PLAIN, database_parts
from smooth_migrations.touched import is_here, kept, model_of, refers_to, touched

__all__ = ["Walk", "place_backwards", "place_forwards"]

_NOTED = ("_held", "_in_halves", "_halves_so_far", "_made", "_added", "_renamed", "_taken", "_kept", "_let_go")


@dataclass(slots=True)
class Walk:
    """A way through migrations, with the state of the tables.

    Args:
        connection: the database's. Nothing is asked of it but what it can do.
        schema: the state of the tables; it is moved along.
        queue: what is held back already, by operation.
        existing: the models whose tables the release still running uses; None where nothing more is to be split.
        is_new: whether what comes now was not applied before.
        refusals: what cannot be split is added to them, and run as a whole; None raises it.
    """

    connection: BaseDatabaseWrapper
    schema: ProjectState
    queue: Mapping[tuple[str, str, int], Queued]
    existing: AbstractSet[ModelKey] | None = None
    is_new: bool = False
    refusals: list[tuple[Migration, CannotSplit]] | None = None
    _held: list[tuple[tuple[ModelKey | None, str | None], Queued]] = field(default_factory=list)
    _in_halves: set[ModelKey | None] = field(default_factory=set)
    _halves_so_far: list[beside.Held] = field(default_factory=list)
    _made: set[ModelKey] = field(default_factory=set)
    _added: set[tuple[ModelKey, str]] = field(default_factory=set)
    _renamed: set[ModelKey] = field(default_factory=set)
    _taken: set[ModelKey] = field(default_factory=set)
    _let_go: set[tuple[ModelKey, str]] = field(default_factory=set)
    _kept: dict[str, Renamed] = field(default_factory=dict)

    @classmethod
    def to_now(
        cls,
        connection: BaseDatabaseWrapper,
        executor: MigrationExecutor,
        queue: Sequence[Queued],
        wanted: AbstractSet[Migration] = frozenset(),
    ) -> tuple["Walk", list[Placed]]:
        """Walk through all that is applied, and return where that leads with the operations of some migrations.

        Args:
            connection: the database's.
            executor: of it.
            queue: what is held back there.
            wanted: these are walked through also where they are not recorded.

        Raises:
            PendingConflict: it is not known what is held back.
        """
        refuse_later(queue)
        loader = executor.loader
        walk = cls(connection, ProjectState(real_apps=loader.unmigrated_apps), {item.key: item for item in queue})
        applied = {loader.graph.nodes[key] for key in loader.applied_migrations if key in loader.graph.nodes}
        placed: list[Placed] = []
        for migration, _backwards in executor.migration_plan(loader.graph.leaf_nodes(), clean_start=True):
            if migration in wanted:
                placed += walk.through(migration, keeps=True)
            elif migration in applied:
                walk.through(migration)
        return walk, placed

    def begin(self, refusals: list[tuple[Migration, CannotSplit]] | None, *, expands: bool) -> None:
        """Take what comes from here on for what was not applied before."""
        self.is_new, self.refusals = True, refusals
        self._added.clear()
        self._kept.clear()
        if expands:
            self.existing = frozenset(self.schema.models)

    def refuse_missing(self) -> None:
        """Make sure that the way has led past all that is held back.

        Raises:
            PendingConflict: a file is gone or replaced by a squash, so that nobody knows what the tables are like.
        """
        refuse_missing(self.queue.values(), {item.key for _, item in self._held})

    def splits(self, plan: Sequence[Migration]) -> bool:
        """Return whether anything of a plan would run in halves; stays where it is."""
        # What it notes on the way is its own.
        noted = {name: copy(getattr(self, name)) for name in _NOTED}
        ahead = replace(self, schema=self.schema.clone(), **noted)
        return any(item.split for migration in plan for item in ahead.through(migration))

    def through(self, migration: Migration, *, keeps: bool = False) -> list[Placed]:
        """Go past a migration, and return its operations where they are asked for.

        Raises:
            CannotSplit: one of them would break one of two releases.
            PendingConflict: one of them touches what is still held back.
        """
        if keeps:
            # Columns of SQLite are ordered by when their fields came to be: those of the state before come first.
            self.schema.apps  # noqa: B018 - rendered here, and carried on from operation to operation
        folds = self.folds(migration)
        return [
            Placed(migration, number, operation, halves, states)
            for number, operation in enumerate(originals(migration))
            for halves, states in [
                self.past_state(folds[number], migration.app_label, keeps=keeps)
                if number in folds
                else self.past(migration, number, operation, keeps=keeps)
            ]
        ]

    def folds(self, migration: Migration) -> Mapping[int, Sequence[Operation]]:
        """Return what of the next migration leaves the database as it is, by numbers, and what moves its state."""
        label, place = migration.app_label, Place(migration.app_label, self.schema, self.connection)
        may_be_new = self.is_new and self.connection.vendor == "postgresql"

        def is_kept(number: int, rename: RenameField) -> bool:
            return (label, migration.name, number) in self.queue or (may_be_new and self._is_used(rename, place))

        return folded(originals(migration), label, self.schema, is_kept)

    def past_state(
        self, parts: Sequence[Operation], app_label: str, *, keeps: bool = False
    ) -> tuple[None, tuple[ProjectState, ...]]:
        """Move the state of the tables, and nothing else."""
        if keeps:
            self.schema = self.schema.clone()
        for part in parts:
            part.state_forwards(app_label, self.schema)
        return None, (self.schema,) if keeps else ()

    def past(
        self, migration: Migration, number: int, operation: Operation, *, keeps: bool = False
    ) -> tuple[Split | None, tuple[ProjectState, ...]]:
        """Go past one operation of a migration, and return its halves with the states that are asked for.

        Raises:
            CannotSplit, PendingConflict: as `through` does.
        """
        app_label = migration.app_label
        later = originals(migration)[number + 1 :] if migration.atomic else []
        place = Place(app_label, self.schema, self.connection, self._added, self._kept, later)
        try:
            halves = self._halves(operation, place, (migration, number))
        except CannotSplit as error:
            if self.refusals is None:
                raise
            self.refusals.append((migration, error))
            halves = None
        parts = [operation] if halves is None else halves.expand()
        if is_gone(operation, app_label, self.schema):
            parts = []
        states = [self.schema]
        for part in parts:
            if keeps:
                self.schema = self.schema.clone()
            part.state_forwards(app_label, self.schema)
            states.append(self.schema)
        self._note(operation, app_label)
        if halves is not None and isinstance(operation, RenameModel):
            self._taken.add((app_label, operation.old_name_lower))
        if halves is not None and halves.is_of_table:
            self._in_halves.add(touched(operation, app_label)[0])
            self._halves_so_far.append((touched(operation, app_label), halves))
            if isinstance(halves, SplitRename):
                self._kept = {**{table.new: table for table in halves.tables}, **self._kept}
            if isinstance(operation, RenameModel | AlterModelTable):
                self._renamed |= {(app_label, name) for name in models_of(operation)}
        return halves, tuple(states) if keeps else ()

    def _halves(self, operation: Operation, place: Place, at: tuple[Migration, int]) -> Split | None:
        migration, number = at
        key = (migration.app_label, migration.name, number)
        if key in self.queue:
            halves = split(operation, place)
            part = None if halves is None or halves.is_of_table else halves.description
            self._held += [((model, name or part), self.queue[key]) for model, name in kept(operation, key[0])]
            if halves is None or not self.queue[key].may_be(halves.kind, halves.description, digest_of(migration)):
                raise PendingConflict(
                    f"{self.queue[key]} is held back, and the file of {key[0]}.{key[1]} is another one now",
                    hint="run this with the release that deployed it",
                )
            return halves
        self._refuse_conflict(operation, migration)
        if self.is_new:
            beside.refuse_beside_old_columns(operation, place, self._halves_so_far)
            beside.refuse_renamed_key(operation, place, self._halves_so_far)
            self._let_go.update(beside.let_go(operation, place))
        if isinstance(operation, SeparateDatabaseAndState):
            self._refuse_within(operation, place)
        if self.existing is None or type(operation).__module__ not in PLAIN:
            return None
        halves = self._new_halves(operation, place)
        if halves is not None and halves.may_be_whole and not self._is_deleted_from(operation, place):
            return None
        return halves

    def _new_halves(self, operation: Operation, place: Place) -> Split | None:
        beside.refuse_taken_name(operation, place, self._taken)
        if isinstance(operation, CreateModel):
            return split(operation, place) if self._is_deleted_from(operation, place) else None
        if not self._is_used(operation, place):
            return None
        beside.refuse_beside_view(operation, place, self._renamed, self._in_halves)
        try:
            halves = split(operation, place)
        except CannotSplit:
            if not is_here(operation, place):
                return None
            raise
        if halves is None or not is_here(operation, place):
            return None
        if isinstance(halves, SplitRenameField):
            beside.refuse_old_column(halves, operation, self._halves_so_far, self._let_go)
        return halves

    def _refuse_conflict(self, operation: Operation, migration: Migration) -> None:
        model, name = touched(operation, migration.app_label)
        for (held_model, held_name), item in self._held if self.is_new else ():
            if model is not None and model == held_model and (name is None or held_name is None or name == held_name):
                raise PendingConflict(
                    f"{migration}: {operation.describe()} touches what is still held back ({item})",
                    hint="finalise first: smooth-orchestrate finalise PLAN, or manage.py finalise_migrations",
                )

    def _refuse_within(self, operation: SeparateDatabaseAndState, place: Place) -> None:
        """Refuse what is not Django's own way from one state to the other, where that would matter."""
        for part in database_parts(operation):
            model, _ = touched(part, place.app_label)
            if model is not None and model in self._in_halves and place.connection.vendor == "sqlite":
                raise CannotSplit(f"{part.describe()} would make a table anew of which a column is held back")
            halves = split(part, place) if self._is_used(part, place) else None
            if halves is not None and not halves.may_be_whole:
                raise CannotSplit(
                    f"{part.describe()}, within SeparateDatabaseAndState, would break the running release"
                )

    def _is_used(self, operation: Operation, place: Place) -> bool:
        """Return whether the release still running uses what an operation changes."""
        model = model_of(operation)
        if model is None or self.existing is None:
            return False
        key = (place.app_label, model)
        if key in self._made and isinstance(operation, AddField):
            return self._is_deleted_from(operation, place)
        if key in self._made or key not in self.existing:
            return False
        state = self.schema.models.get(key)
        if state is None or not state.options.get("managed", True) or state.options.get("proxy"):
            return False
        if isinstance(operation, RenameField):
            return (key, operation.old_name) not in self._added
        return not isinstance(operation, RemoveField) or (key, operation.name) not in self._added

    def _is_deleted_from(self, operation: Operation, place: Place) -> bool:
        """Return whether new fields refer to rows that go when the release still running deletes some of its own."""
        known = (self.existing or frozenset()) - self._made
        return not refers_to(operation, place.app_label).isdisjoint(known | self._in_halves)

    def _note(self, operation: Operation, app_label: str) -> None:
        if isinstance(operation, AddField):
            self._added.add(((app_label, operation.model_name_lower), operation.name))
        elif isinstance(operation, RenameField):
            key = (app_label, operation.model_name_lower)
            for _, halves in self._halves_so_far:
                halves.follow(key, operation.old_name, operation.new_name)
            if (key, operation.old_name) in self._added:
                self._added.add((key, operation.new_name))
        elif self.existing is not None and isinstance(operation, CreateModel):
            self._made.add((app_label, operation.name_lower))
        elif isinstance(operation, RenameModel):
            old, new = (app_label, operation.old_name_lower), (app_label, operation.new_name_lower)
            for models in (self._made, self._renamed):
                if old in models:
                    models.add(new)
            if self.existing is not None and old in self.existing:
                self.existing = self.existing | {new}


def place_forwards(
    connection: BaseDatabaseWrapper,
    plan: Sequence[Migration],
    *,
    expands: bool,
    executor: MigrationExecutor | None = None,
    refusals: list[tuple[Migration, CannotSplit]] | None = None,
    queue: Sequence[Queued] | None = None,
) -> list[Placed]:
    """Return how the operations of a plan run: none where nothing is held back, and nothing is to be.

    Args:
        connection: the database's. Only reads.
        plan: what is about to be applied, in order.
        expands: whether what the release still running cannot live with is held back.
        executor: of the database, where there is one already.
        refusals: what cannot be split is added to them; None raises it.
        queue: what is held back already, where that has been read.

    Raises:
        CannotSplit: something cannot be.
        PendingConflict: an operation touches what is held back already.
    """
    queue = read_queue(connection) if queue is None else queue
    refuse_unrecorded(connection, queue)
    expands = expands and any(may_split(operation) for migration in plan for operation in migration.operations)
    if not plan or not (queue or expands):
        return []
    executor = _executor(connection, plan, executor)
    expands = expands and bool(executor.loader.applied_migrations)
    walk, _ = Walk.to_now(connection, executor, queue)
    walk.refuse_missing()
    walk.begin(refusals, expands=expands)
    if not queue and not walk.splits(plan):
        return []
    if refusals is not None:
        # Those that the look ahead has found come once more.
        refusals.clear()
    placed = [item for migration in plan for item in walk.through(migration, keeps=True)]
    for item in placed:
        for error in item.hindrances(connection):
            if refusals is None:
                raise error
            refusals.append((item.migration, error))
    return placed


def place_backwards(
    connection: BaseDatabaseWrapper,
    moved: Sequence[Migration],
    executor: MigrationExecutor | None = None,
    *,
    is_killed: bool = False,
) -> list[Placed]:
    """Return how the operations of migrations run backwards that have been applied: none where nothing is held back.

    Args:
        connection: the database's. Only reads.
        moved: the migrations.
        executor: of the database, where there is one already.
        is_killed: whether a call that was killed has moved them, in either direction.
    """
    queue = read_queue(connection, struck=is_killed)
    if not moved or not queue:
        return []
    walk, placed = Walk.to_now(connection, _executor(connection, moved, executor), queue, {*moved})
    if not is_killed:
        walk.refuse_missing()
    return placed


def _executor(
    connection: BaseDatabaseWrapper, moved: Sequence[Migration], executor: MigrationExecutor | None
) -> MigrationExecutor:
    executor = executor or MigrationExecutor(connection)
    for migration in moved:
        # These very instances are about to run.
        executor.loader.graph.nodes[migration.app_label, migration.name] = migration
    return executor
