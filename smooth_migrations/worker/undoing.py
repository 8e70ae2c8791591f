"""What a worker takes back of what was committed, and what would be lost with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor

from smooth_migrations import protocol
from smooth_migrations.call import Call
from smooth_migrations.errors import describe, is_caused_by_holding, is_lock_failure
from smooth_migrations.halves import install
from smooth_migrations.lease import Holder
from smooth_migrations.marker import read_markers, remove_marker
from smooth_migrations.options import Options
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.reversibility import can_hold
from smooth_migrations.splitting import place_backwards
from smooth_migrations.turn import FOR_ITSELF_S, Turn
from smooth_migrations.unapplying import (
    discard,
    lock_back,
    lost_beside,
    lost_under_locks,
    plan_back,
    refuse_losses,
    state_now,
)
from smooth_migrations.undo.built_upon import refuse_what_others_need
from smooth_migrations.undo.journal import Entry, EntryState, unfinished_call
from smooth_migrations.undo.moved import Moved
from smooth_migrations.undo.recalling import rename_types_with_models
from smooth_migrations.undo.transaction import HeldTransaction, run_callbacks
from smooth_migrations.worker.left import any_stands, forget_what_is_gone, refuse_other_files
from smooth_migrations.worker.reporters import Reporter

__all__ = ["Undoing"]


class Undoing:
    """Committed steps that are taken back: in one transaction, where the server can take back DDL, or each by itself.

    Args:
        connection: the target's.
        command: what is to be taken back.
        options: of the call that does.
        say: sends one event.

    Attributes:
        undone: what was taken back, in order.
        lost: in words, what was written since, and goes with it.
        is_accepted: whether an operator had taken it back by hand, and it was forgotten.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        command: protocol.Undo,
        options: Options,
        say: Callable[[protocol.Event], None],
    ) -> None:
        self._connection, self._command, self._say = connection, command, say
        self._later: list[protocol.MigrationUnapplied | protocol.UnapplyFailed] = []
        self._call = Call(connection, options, Reporter(self._tell, command))
        self._held = HeldTransaction(
            connection, limits=options.limits, application_name=options.application_name, sees_new=options.sees_new
        )
        self._turn: Turn | None = None
        self.undone: tuple[protocol.Step, ...] = ()
        self.lost: tuple[str, ...] = ()
        self.is_accepted = False

    @property
    def alias(self) -> str:
        """The target's alias."""
        return self._command.alias

    @property
    def is_open(self) -> bool:
        """Whether a transaction is open whose commit makes it so."""
        return self._held.is_open

    def is_hindered_by_holding(self, error: Exception) -> bool:
        """Return whether the steps may go back when each does so by itself. To be asked while it is open."""
        return self.is_open and is_caused_by_holding(error)

    @property
    def remaining(self) -> tuple[protocol.Step, ...]:
        """What is still to be taken back."""
        return self._call.committed or self._command.steps

    def run(self) -> None:
        """Take the steps back. Locks what is lost, where the server can; what is still open then awaits its end.

        Raises:
            SmoothMigrationsError: something is in the way.
            DatabaseError: likewise.
        """
        connection, command, call = self._connection, self._command, self._call
        self._turn = Turn.begin(connection, call, owner=command.run_id, patience_s=self._patience_s)
        self._say(protocol.Leased(id=command.id, epoch=self._turn.epoch, release=self._turn.release))
        # The database's own journal knows more than a coordinator whose worker was lost.
        unfinished = unfinished_call(connection)
        is_left = unfinished is not None and unfinished.call_id == command.run_id
        made_at = [marker.epoch for marker in read_markers(connection, command.deploy, [command.run_id])]
        if not is_left and not made_at and not any_stands(connection, command.steps):
            # Whoever had the lease meanwhile has taken it back.
            return
        if command.epoch not in made_at:
            self._turn.refuse_unless_after(command.epoch)
        if command.accepts and forget_what_is_gone(connection, call, command, unfinished if is_left else None):
            self.is_accepted = True
            return
        if unfinished is not None and is_left:
            refuse_what_others_need(connection, unfinished, goes_on=False)
            call.recall(unfinished)
        else:
            if connection.features.can_rollback_ddl and not command.stepwise:
                self._held.begin()
                call.aliases.waits = True
            moved = _placed_back(connection, command, is_held=self._held.is_open)
            self.lost = call.permanent.manner.persist(partial(_lose, connection, command))
            _adopt(connection, call, command, moved)
        self.undone = call.rollback()

    def _patience_s(self, holder: Holder) -> float:
        return FOR_ITSELF_S if holder.owner.name == self._command.run_id else 0.0

    def finish(self, command: protocol.Command) -> None:
        """Commit what is open, if the lease is still held, and tell what was taken back as an answer to a command.

        Raises:
            LeaseLost: it is another's turn; nothing was committed.
            DatabaseError: likewise, or nobody knows.
        """
        if not self._held.is_open:
            return
        self._call.permanent.journal.check()
        self._call.aliases.waits = False
        self._call.aliases.commit()
        with passing("undo_commit"):
            callbacks = self._held.commit()
        for event in self._later:
            self._say(replace(event, id=command.id))
        run_callbacks(callbacks)

    def give_up(self, error: BaseException | None) -> None:
        """Roll back what is open, and give the turn back. Repeating it does nothing."""
        if self._held.is_open:
            is_final = error is not None and not is_caused_by_holding(error)
            with passing("rollback"):
                self._held.rollback(error)
                self._call.aliases.drop()
            # Of what the call has adopted and taken back nothing is so any more.
            self._call.permanent.moved.clear()
            for event in self._later:
                if is_final and isinstance(event, protocol.UnapplyFailed):
                    self._say(event)
        self.end()

    def end(self) -> None:
        """Give the turn back. Repeating it does nothing."""
        if self._turn is not None:
            self._turn.end()

    def _tell(self, event: protocol.Event) -> None:
        # What is taken back in one transaction is so when that has been committed; what fails there may go by itself.
        if self._held.is_open and isinstance(event, protocol.MigrationUnapplied | protocol.UnapplyFailed):
            self._later.append(event)
        else:
            self._say(event)


def _placed_back(connection: BaseDatabaseWrapper, command: protocol.Undo, *, is_held: bool) -> list[Moved]:
    """Return committed steps as they are to go back. Safe to repeat.

    Args:
        connection: the target's.
        command: which they are.
        is_held: whether a transaction is open for all of them, in which their strong locks are taken.

    Raises:
        FilesGone: a file is missing, or was changed since.
        OperationalError: others did not let go of a lock.
    """
    executor = MigrationExecutor(connection)
    nodes = executor.loader.disk_migrations
    refuse_other_files(connection, command.steps)
    migrations = [nodes[step.app, step.name] for step in command.steps]
    install(place_backwards(connection, migrations), command.run_id)
    rename_types_with_models(connection, nodes, command.steps)
    if is_held:
        lock_back(connection, executor, migrations)
    return [
        Moved(migration, step, entries=_by_itself(connection, migration) if command.stepwise else None)
        for migration, step in zip(migrations, command.steps, strict=True)
    ]


def _adopt(connection: BaseDatabaseWrapper, call: Call, command: protocol.Undo, moved: Sequence[Moved]) -> None:
    """Make a call responsible for committed steps. Locks nothing; not to be repeated in one transaction.

    Args:
        connection: the target's.
        call: that takes them back.
        command: that asked for it.
        moved: which they are.
    """
    # Where each step is committed by itself, it shows from here on as steps to be taken back, however far that comes.
    with passing("undo"), transaction.atomic(command.alias):
        call.permanent.adopt(moved, before=command.before, received=command.received)
        remove_marker(connection, command.deploy, command.run_id)


def _by_itself(connection: BaseDatabaseWrapper, migration: Migration) -> tuple[Entry, ...] | None:
    """Return the operations of a migration that go back outside a transaction, as they have run. Pure."""
    if can_hold(migration, connection) or not connection.features.can_rollback_ddl:
        return None
    return tuple(Entry(number, EntryState.DONE, {}) for number in range(len(migration.operations)))


def _lose(connection: BaseDatabaseWrapper, command: protocol.Undo) -> tuple[str, ...]:
    """Lose what was written since to committed steps, and return it in words. Safe to repeat.

    Rows are deleted here of which the old schema could not be; the rest goes with the steps. As for the locks, see
    `lost_under_locks`.

    Args:
        connection: the target's, in the transaction that takes them back, where there is one.
        command: which they are.

    Raises:
        WouldDiscard: something would be lost, and must not be.
        DatabaseError: a lock is in the way, or nobody can look and nothing must be lost.
    """
    executor = MigrationExecutor(connection)
    migrations = plan_back(executor, protocol.Back(command.run_id, command.steps))
    try:
        with transaction.atomic(connection.alias):
            with_steps = lost_under_locks(connection, executor, migrations)
            beside = lost_beside(connection, state_now(executor).apps, command.received)
            tables = {loss.table for loss in with_steps}
            lost = (*map(str, with_steps), *(told for table, told in beside.items() if table not in tables))
            if command.discards:
                discard(connection, place_backwards(connection, migrations, executor))
    except Error as error:
        if not command.discards or is_lock_failure(error):
            raise
        return (f"nobody can tell what of {command.database} is lost: {describe(error).message}",)
    if not command.discards:
        refuse_losses(lost)
    return lost
