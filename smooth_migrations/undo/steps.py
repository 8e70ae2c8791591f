"""Take back what was committed: reverse operations, newest first.

Used where one transaction cannot hold everything: `atomic = False`, a server that commits at every DDL statement, and
steps that an earlier phase made permanent.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.already_made import already_made_left
from smooth_migrations.undo.backwards import drop_hollow_indexes, fit_to_go_back
from smooth_migrations.undo.moved import Manner, Moved
from smooth_migrations.undo.needless import needless_left_out
from smooth_migrations.undo.operations import OperationLog
from smooth_migrations.undo.records import Record
from smooth_migrations.undo.removed import removed_given_back
from smooth_migrations.undo.states import executor_as_before, rendered_afresh, states_before
from smooth_migrations.undo.tables import restore_tables
from smooth_migrations.undo.transaction import HeldTransaction, run_callbacks

__all__ = ["take_back"]


def take_back(
    connection: BaseDatabaseWrapper,
    moved: Sequence[Moved],
    *,
    records: Iterable[Record],
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
        records: what was recorded before them.
        manner: how.
        log_of: makes the log of a step that ran outside a transaction.
        on_reversed: called with each step within the transaction that reverses it.

    Yields:
        The duration of each reversal, in milliseconds, when it is permanent.

    Raises:
        Exception: whatever a reverse operation raises.
    """
    executor = executor_as_before(connection, [(item.migration, item.step) for item in moved], records)
    for item in moved:
        # Also a migration whose instance was changed by a receiver of pre_migrate.
        executor.loader.graph.nodes[item.step.app, item.step.name] = item.migration
    reversing = _applying_again if moved[0].step.backwards else _unapplying
    for item, before, reverse in reversing(executor, tuple(reversed(moved))):
        started_s = time.monotonic()
        callbacks: Sequence[Callable[[], None]] = []
        with passing("unapply"):
            if item.entries is None:
                callbacks = _in_transaction(connection, item, reverse, manner, on_reversed)
            else:
                log = log_of(item)
                log.recall(item.entries, before)
                manner.persist(log.take_back, unless=partial(getattr, log, "is_parted"))
                on_reversed(item.step)
        yield (time.monotonic() - started_s) * 1000
        run_callbacks(callbacks)


def _in_transaction(
    connection: BaseDatabaseWrapper,
    item: Moved,
    reverse: Callable[[], object],
    manner: Manner,
    on_reversed: Callable[[Step], None],
) -> Sequence[Callable[[], None]]:
    held = HeldTransaction(connection, limits=manner.limits, application_name=manner.application_name)
    attempt = 0
    while True:
        try:
            if connection.features.can_rollback_ddl:
                held.begin()
            if item.tables is not None:
                drop_hollow_indexes(connection, item.named)
            with (
                already_made_left(connection),
                removed_given_back(connection, item.removed),
                connection.execute_wrapper(item.named),
            ):
                reverse()
            if item.tables is not None:
                restore_tables(connection, item.tables, item.named)
            on_reversed(item.step)
            return held.commit() if held.is_open else []
        except BaseException as error:
            is_held = held.is_open
            held.rollback()
            attempt += 1
            if not is_held or not manner.may_try_again(attempt, error):
                raise
            manner.pause(attempt, error)


_Reversal = tuple[Moved, ProjectState, Callable[[], object]]


def _unapplying(executor: MigrationExecutor, newest_first: Sequence[Moved]) -> Iterator[_Reversal]:
    states = states_before(executor, {item.migration for item in newest_first})
    for item in newest_first:

        def reverse(item: Moved = item) -> None:
            with (
                rendered_afresh(item.migration.operations),
                fit_to_go_back(executor.connection, item.migration.operations),
                needless_left_out(item.migration, executor.connection, item.tables),
            ):
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
