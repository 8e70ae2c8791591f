"""Take back what was committed: reverse operations, newest first.

Used where one transaction cannot hold everything: `atomic = False`, a server that commits at every DDL statement, and
steps that an earlier phase made permanent.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration, RunPython
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from smooth_migrations.errors import is_lock_failure
from smooth_migrations.protocol.values import Step
from smooth_migrations.reversibility import database_parts
from smooth_migrations.undo.named import Named, tables_of
from smooth_migrations.undo.records import keys_of
from smooth_migrations.undo.synced import tables_of_apps
from smooth_migrations.undo.tables import Definitions, restore_tables
from smooth_migrations.undo.transaction import HeldTransaction, Limits

__all__ = ["Manner", "Moved", "executor_as_before", "state_before", "states_before", "tables_of_all", "take_back"]


@dataclass(frozen=True, slots=True)
class Moved:
    """One migration that the call moved.

    Args:
        migration: the very instance, since receivers of pre_migrate may have changed it.
        step: the same by name, and in which direction.
        tables: the definitions of the tables before it, where they were taken.
        named: which of them it may have changed.
    """

    migration: Migration
    step: Step
    tables: Definitions | None = None
    named: Named = field(default_factory=Named)


@dataclass(frozen=True, slots=True)
class Manner:
    """How committed steps are reversed.

    Args:
        limits: time-outs of each statement in a transaction.
        application_name: of our session.
        lock_retries: how often a step is tried again after a lock time-out.
        pause: waits before another attempt, given its number and why.
    """

    limits: Limits
    application_name: str | None
    lock_retries: int
    pause: Callable[[int, BaseException], None]


def take_back(
    connection: BaseDatabaseWrapper, moved: Sequence[Moved], *, manner: Manner, on_reversed: Callable[[Step], None]
) -> Iterator[float]:
    """Reverse committed steps, newest first, each in a transaction of its own where its migration is atomic.

    What was only recorded is only unrecorded. Repeating it with the steps that remain goes on where it stopped.

    Args:
        connection: the target's, in autocommit.
        moved: in the order in which they happened; a call moves in one direction.
        manner: how.
        on_reversed: called with each step within the transaction that reverses it.

    Yields:
        The duration of each reversal, in milliseconds, when it is permanent.

    Raises:
        Exception: whatever a reverse operation raises.
    """
    executor = executor_as_before(connection, moved)
    for item in moved:
        # Also a migration whose instance was changed by a receiver of pre_migrate.
        executor.loader.graph.nodes[item.step.app, item.step.name] = item.migration
    reversing = _applying_again if moved[0].step.backwards else _unapplying
    for item, reverse in reversing(executor, tuple(reversed(moved))):
        started_s = time.monotonic()
        callbacks = _in_transaction(connection, item, reverse, manner, on_reversed)
        yield (time.monotonic() - started_s) * 1000
        for callback in callbacks:
            callback()


def _in_transaction(
    connection: BaseDatabaseWrapper,
    item: Moved,
    reverse: Callable[[], object],
    manner: Manner,
    on_reversed: Callable[[Step], None],
) -> Sequence[Callable[[], None]]:
    transaction = HeldTransaction(connection, limits=manner.limits, application_name=manner.application_name)
    holds = item.migration.atomic and connection.features.can_rollback_ddl
    attempt = 0
    while True:
        try:
            if holds:
                transaction.begin()
            with connection.execute_wrapper(item.named):
                reverse()
            if item.tables is not None:
                restore_tables(connection, item.tables, item.named)
            on_reversed(item.step)
            return transaction.commit() if holds else []
        except BaseException as error:
            transaction.rollback()
            attempt += 1
            if not holds or not is_lock_failure(error) or attempt > manner.lock_retries:
                raise
            manner.pause(attempt, error)


_Reversal = tuple[Moved, Callable[[], object]]


def _unapplying(executor: MigrationExecutor, newest_first: Sequence[Moved]) -> Iterator[_Reversal]:
    states = states_before(executor, {item.migration for item in newest_first})
    for item in newest_first:

        def reverse(item: Moved = item) -> None:
            with _rendered_afresh(item.migration):
                executor.unapply_migration(states[item.migration], item.migration, fake=item.step.fake)

        yield item, reverse


def _applying_again(executor: MigrationExecutor, newest_first: Sequence[Moved]) -> Iterator[_Reversal]:
    state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    for item in newest_first:

        def reverse(item: Moved = item) -> None:
            nonlocal state
            before = state.clone()  # for another attempt: applying changes the state it is given
            executor.apply_migration(before, item.migration, fake=item.step.fake)
            state = item.migration.mutate_state(before, preserve=False) if item.step.fake else before

        yield item, reverse


def executor_as_before(connection: BaseDatabaseWrapper, moved: Sequence[Moved]) -> MigrationExecutor:
    """Return an executor with the graph that the call had, which began before these steps.

    A squash of which the half was applied is not there, and is when the other half is applied too.

    Args:
        connection: the target's.
        moved: what the call has recorded, in order.
    """
    executor = MigrationExecutor(connection)
    if not executor.loader.replacements:
        return executor
    loader = executor.loader = MigrationLoader(connection, replace_migrations=False)
    before = {*loader.applied_migrations}
    for item in moved:
        before = before | keys_of(item.migration) if item.step.backwards else before - keys_of(item.migration)
    for key, squash in loader.replacements.items():
        replaced = set(squash.replaces)
        if replaced <= {*loader.applied_migrations}:
            loader.applied_migrations[key] = squash
        else:
            loader.applied_migrations.pop(key, None)
        if replaced <= before or not replaced & before:
            loader.graph.remove_replaced_nodes(key, squash.replaces)
        else:
            loader.graph.remove_replacement_node(key, squash.replaces)
    return executor


def state_before(executor: MigrationExecutor, migration: Migration) -> ProjectState:
    """Return the project's state before a migration."""
    executor.loader.graph.nodes[migration.app_label, migration.name] = migration
    return states_before(executor, {migration})[migration]


def tables_of_all(connection: BaseDatabaseWrapper) -> frozenset[str]:
    """Return the name of every table that any migration of the project makes, also of those that a later one drops."""
    executor = MigrationExecutor(connection)
    tables: set[str] = {*tables_of_apps(connection, executor.loader.unmigrated_apps)}
    state = ProjectState(real_apps=executor.loader.unmigrated_apps)
    for migration, _backwards in executor.migration_plan(executor.loader.graph.leaf_nodes(), clean_start=True):
        state = migration.mutate_state(state, preserve=False)
        for operation in migration.operations:
            for part in database_parts(operation):
                for name in (getattr(part, "name", None), getattr(part, "model_name", None)):
                    key = (migration.app_label, str(name).lower())
                    if key in state.models:
                        tables |= set(tables_of(key, state.models[key]))
    return frozenset(tables)


def states_before(executor: MigrationExecutor, wanted: set[Migration]) -> dict[Migration, ProjectState]:
    """Return the state before each of these migrations, computed in one pass as Django does for backwards plans."""
    loader = executor.loader
    applied = {loader.graph.nodes[key] for key in loader.applied_migrations if key in loader.graph.nodes}
    states: dict[Migration, ProjectState] = {}
    state = ProjectState(real_apps=loader.unmigrated_apps)
    for migration, _backwards in executor.migration_plan(loader.graph.leaf_nodes(), clean_start=True):
        if len(states) == len(wanted):
            break
        if migration in wanted:
            if not states:
                state.apps  # noqa: B018 - rendered once here, and carried on from migration to migration
            states[migration] = state
            state = migration.mutate_state(state, preserve=True)
        elif migration in applied:
            migration.mutate_state(state, preserve=False)
    return states


@contextmanager
def _rendered_afresh(migration: Migration) -> Iterator[None]:
    """Give reverse code models that were rendered for it alone.

    States that are carried on share models, some of which then refer to models of another state: deleting through them
    fails with "Cannot query …: Must be … instance". Schema operations do not query, and need not wait for a rendering.
    """
    watched = [
        part for operation in migration.operations for part in database_parts(operation) if isinstance(part, RunPython)
    ]
    for operation in watched:
        run = operation.database_backwards

        def backwards(
            app_label: str,
            editor: BaseDatabaseSchemaEditor,
            from_state: ProjectState,
            to_state: ProjectState,
            run: Callable[..., None] = run,
        ) -> None:
            models = {key: model.clone() for key, model in from_state.models.items()}
            run(app_label, editor, ProjectState(models=models, real_apps=from_state.real_apps), to_state)

        operation.__dict__["database_backwards"] = backwards
    try:
        yield
    finally:
        for operation in watched:
            operation.__dict__.pop("database_backwards", None)
