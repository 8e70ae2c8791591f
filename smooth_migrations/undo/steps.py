"""Take back what was committed: reverse operations, newest first.

Used where one transaction cannot hold everything: `atomic = False`, a server that commits at every DDL statement, and
steps that an earlier phase made permanent.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState

from smooth_migrations.errors import is_lock_failure
from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.journal import Entry, UnfinishedCall
from smooth_migrations.undo.named import Named, named_by
from smooth_migrations.undo.operations import OperationLog
from smooth_migrations.undo.states import executor_as_before, rendered_afresh, state_before, states_before, states_of
from smooth_migrations.undo.tables import Definitions, restore_tables
from smooth_migrations.undo.transaction import HeldTransaction, Limits

__all__ = ["OUTSIDE", "Manner", "Moved", "recalled", "take_back"]

OUTSIDE: Final = {"is_outside": True}
"""In the journal's row of a migration whose operations have rows of their own."""


@dataclass(frozen=True, slots=True)
class Moved:
    """One migration that the call moved.

    Args:
        migration: the very instance, since receivers of pre_migrate may have changed it.
        step: the same by name, and in which direction.
        tables: the definitions of the tables before it, where they were taken.
        named: which of them it may have changed.
        entries: its operations, where it ran outside a transaction and each can be taken back by itself.
    """

    migration: Migration
    step: Step
    tables: Definitions | None = None
    named: Named = field(default_factory=Named)
    entries: tuple[Entry, ...] | None = None


def recalled(executor: MigrationExecutor, migration: Migration, step: Step, unfinished: UnfinishedCall) -> Moved:
    """Return a step of a killed call, as far as its journal tells of it.

    Args:
        executor: with the graph that the call had.
        migration: which ran.
        step: the same by name.
        unfinished: the call.
    """
    detail = unfinished.details[step]
    entries = unfinished.entries[step] if OUTSIDE.items() <= detail.items() and not step.fake else None
    if "tables" not in detail:
        return Moved(migration, step, entries=entries)
    states = states_of(migration, state_before(executor, migration))
    named = named_by(migration.operations, migration.app_label, states)
    return Moved(migration, step, detail["tables"], named, entries)


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
    connection: BaseDatabaseWrapper,
    moved: Sequence[Moved],
    *,
    manner: Manner,
    log_of: Callable[[Moved], OperationLog],
    on_reversed: Callable[[Step], None],
) -> Iterator[float]:
    """Reverse committed steps, newest first, each in a transaction of its own where its migration ran in one.

    What was only recorded is only unrecorded. Repeating it with the steps that remain goes on where it stopped, within
    a step at the operation at which it stopped.

    Args:
        connection: the target's, in autocommit.
        moved: in the order in which they happened; a call moves in one direction.
        manner: how.
        log_of: makes the log of a step that ran outside a transaction.
        on_reversed: called with each step within the transaction that reverses it.

    Yields:
        The duration of each reversal, in milliseconds, when it is permanent.

    Raises:
        Exception: whatever a reverse operation raises.
    """
    executor = executor_as_before(connection, [(item.migration, item.step) for item in moved])
    for item in moved:
        # Also a migration whose instance was changed by a receiver of pre_migrate.
        executor.loader.graph.nodes[item.step.app, item.step.name] = item.migration
    reversing = _applying_again if moved[0].step.backwards else _unapplying
    for item, before, reverse in reversing(executor, tuple(reversed(moved))):
        started_s = time.monotonic()
        callbacks: Sequence[Callable[[], None]] = []
        if item.entries is None:
            callbacks = _in_transaction(connection, item, reverse, manner, on_reversed)
        else:
            log = log_of(item)
            log.recall(item.entries, before)
            log.take_back()
            on_reversed(item.step)
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
    attempt = 0
    while True:
        try:
            if connection.features.can_rollback_ddl:
                transaction.begin()
            with connection.execute_wrapper(item.named):
                reverse()
            if item.tables is not None:
                restore_tables(connection, item.tables, item.named)
            on_reversed(item.step)
            return transaction.commit() if transaction.is_open else []
        except BaseException as error:
            is_held = transaction.is_open
            transaction.rollback()
            attempt += 1
            if not is_held or not is_lock_failure(error) or attempt > manner.lock_retries:
                raise
            manner.pause(attempt, error)


_Reversal = tuple[Moved, ProjectState, Callable[[], object]]


def _unapplying(executor: MigrationExecutor, newest_first: Sequence[Moved]) -> Iterator[_Reversal]:
    states = states_before(executor, {item.migration for item in newest_first})
    for item in newest_first:

        def reverse(item: Moved = item) -> None:
            with rendered_afresh(item.migration.operations):
                executor.unapply_migration(states[item.migration], item.migration, fake=item.step.fake)

        yield item, states[item.migration], reverse


def _applying_again(executor: MigrationExecutor, newest_first: Sequence[Moved]) -> Iterator[_Reversal]:
    state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    state.apps  # noqa: B018 - rendered once here, and carried on from migration to migration
    for item in newest_first:

        def reverse(item: Moved = item, before: ProjectState = state) -> None:
            # Applying changes the state that it is given, and may be tried again.
            executor.apply_migration(before.clone(), item.migration, fake=item.step.fake)

        yield item, state, reverse
        state = item.migration.mutate_state(state, preserve=True)
