"""What a call has made permanent before it has succeeded, and the way back from it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations.aliases import Aliases
from smooth_migrations.contract_queue import purge
from smooth_migrations.errors import SchemaDiffers, UndoFailed, not_taken_back
from smooth_migrations.interruption import Interruption
from smooth_migrations.observer import Observer
from smooth_migrations.protocol.failpoints import passing, reach
from smooth_migrations.protocol.values import Before, Received, Step
from smooth_migrations.reversibility import can_hold
from smooth_migrations.session import named
from smooth_migrations.undo.code import ReceiversRows
from smooth_migrations.undo.emptiness import make_empty_again
from smooth_migrations.undo.journal import CallJournal, EntryState, Frame, UnfinishedCall
from smooth_migrations.undo.moved import OUTSIDE, Manner, Moved, recalled, tables_detail
from smooth_migrations.undo.named import Named
from smooth_migrations.undo.recalling import nodes_as_run
from smooth_migrations.undo.records import take_records
from smooth_migrations.undo.removed import removed_kept
from smooth_migrations.undo.rest import restore_rest
from smooth_migrations.undo.states import executor_as_before, state_before, tables_of_all
from smooth_migrations.undo.tables import Definitions, take_tables

if TYPE_CHECKING:
    from smooth_migrations.undo.operations import OperationLog

__all__ = ["Permanent"]


class Permanent:
    """Migrations that a call has committed, with their rows in the database's journal.

    Attributes:
        receivers: what receivers of pre_migrate write.
        moved: what is permanent, in order.
        journal: says what is permanent, in the database itself.

    Args:
        connection: the target's.
        call_id: the call's name in that journal.
        manner: how steps are reversed.
        interruption: of the call.
        aliases: the other aliases, which reverse code may reach as the migration might.
        observer: who is told what is taken back, what could not be, and what of it may stay.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        call_id: str,
        *,
        manner: Manner,
        interruption: Interruption,
        aliases: Aliases,
        observer: Observer,
    ) -> None:
        self._connection = connection
        self.manner = manner
        self._interruption = interruption
        self._aliases = aliases
        self._observer = observer
        self.journal = CallJournal(connection, call_id)
        self.receivers = ReceiversRows(connection, self.journal, interruption)
        self._broken: OperationLog | None = None
        self._reversed: OperationLog | None = None
        self._tables: Definitions | None = None
        self._is_begun = False
        self._is_resumed = self._is_recalled = self._is_undone = self._refuses = False
        self._early: frozenset[Migration] = frozenset()
        self._frame = Frame(Before())
        self.moved: list[Moved] = []

    @property
    def before(self) -> Before:
        """What the database was like before the call."""
        return self._frame.before

    @property
    def steps(self) -> tuple[Step, ...]:
        """What is permanent, in order."""
        return tuple(item.step for item in self.moved)

    @property
    def is_early(self) -> bool:
        """Whether anything has become permanent before the call's end."""
        return self.journal.is_begun

    @property
    def frame(self) -> Frame:
        """What the call began with."""
        return self._frame

    @property
    def is_outside(self) -> bool:
        """Whether a migration is at work outside a transaction."""
        return self._broken is not None

    # --- a call goes forward ----------------------------------------------------------------------------------------

    def expect(self, before: Before) -> None:
        """Remember what the database is like before the call; one that goes on has it from the killed one."""
        if self._is_resumed:
            return
        # None of what is empty is asked for, and there are none without their table.
        records = take_records(self._connection) if before.has_records else ()
        self._frame = Frame(before, None if before.is_empty else records)
        # A server that commits at every DDL statement has done so, whatever is said here.
        self._is_begun = not self._connection.features.can_rollback_ddl

    def expect_back(self, fingerprint: str, early: Collection[Migration], *, refuses: bool) -> None:
        """Note what is permanent before the end, what the schema is, and whether what cannot come back is refused."""
        self._early = frozenset(early)
        self._refuses = refuses
        if not self._is_resumed:
            self._frame = replace(self._frame, fingerprint=self._frame.fingerprint or fingerprint)

    def expect_synced(self, tables: frozenset[str]) -> None:
        """Note the tables that Django is about to make for apps without migrations."""
        self.receivers.stop(is_early=bool(self._early))
        self._frame = replace(self._frame, synced=self._frame.synced | tables)
        if not self._connection.features.can_rollback_ddl:
            self.journal.begin(self._frame)

    def expect_groundwork(self, places: Sequence[tuple[str, str]]) -> None:
        """Note what is about to be made ready."""
        self._frame = replace(self._frame, groundwork=tuple(places))

    def seal(self, held: Sequence[Moved], commit: Callable[[], None]) -> None:
        """Make what is held permanent; from here on it is reversed rather than rolled back.

        Args:
            held: the migrations of the open transaction, in order.
            commit: commits it.
        """
        # What the way back needs is loaded before anything is permanent; a call in one transaction does without.
        import smooth_migrations.undo.proof  # noqa: PLC0415
        import smooth_migrations.undo.rows.restoring  # noqa: PLC0415
        import smooth_migrations.undo.steps  # noqa: F401, PLC0415

        was_written = self.journal.is_begun
        self._is_begun = True
        self.receivers.stop(is_early=True)
        try:
            self.journal.begin(self._frame)
            self.receivers.write()
            for item in held:
                item.noted(self.journal)
            with passing("seal"):
                commit()
        except BaseException:
            if not was_written and self._connection.features.can_rollback_ddl:
                self.journal.lose()
            raise
        self.moved += held
        # Not before the steps are noted: what fails here is to be taken back with them.
        self._aliases.keep()

    def begin(self, migration: Migration, step: Step, until: ExitStack) -> Moved:
        """Return what the undo must know of a migration that begins.

        Args:
            migration: which.
            step: the same by name, and in which direction.
            until: closed when it ends, whichever way.
        """
        reach("apply.before")
        self.receivers.stop(is_early=bool(self._early))
        item = Moved(migration, step, None if self.is_outside else self._tables_before(migration))
        if item.tables is not None:
            until.enter_context(self._connection.execute_wrapper(item.named))
        if migration in self._early and not self.before.is_empty:
            keep = self._broken.keep if self._broken else item.removed.append
            until.enter_context(removed_kept(self._connection, keep, refuses=self._refuses))
        return item

    def _tables_before(self, migration: Migration) -> Definitions | None:
        if self.before.is_empty or (can_hold(migration, self._connection) and migration not in self._early):
            return None
        return take_tables(self._connection)

    def begin_outside(self, migration: Migration, step: Step) -> "OperationLog":
        """Note that a migration begins outside a transaction, and return the log of its operations."""
        self._tables = self._tables_before(migration)
        self.journal.note_step(step, EntryState.BEGUN, OUTSIDE | tables_detail(self._tables))
        self._broken = self._log(migration, step)
        return self._broken

    def finish_outside(self, migration: Migration, step: Step) -> None:
        """Note that it has ended and is recorded."""
        if self._broken is not None:
            self._broken.finish(step)
        naming, entries = (self._broken.named, self._broken.entries) if self._broken else (Named(), ())
        self.moved.append(Moved(migration, step, self._tables, naming, None if step.fake else entries))
        self._broken = None

    def _log(self, migration: Migration, step: Step) -> "OperationLog":
        from smooth_migrations.undo.operations import OperationLog  # noqa: PLC0415 - what is held needs none

        self._reversed = OperationLog(
            self._connection,
            migration,
            step,
            journal=self.journal,
            interruption=self._interruption,
            records=self._frame.records or (),
            is_watchful=not self.before.is_empty,
            is_elsewhere=self._aliases.has_written_here,
        )
        return self._reversed

    def end(self) -> None:
        """Strike the call out of the journal: all of it is wanted. Takes part in the open transaction."""
        self.journal.end()

    # --- and back ---------------------------------------------------------------------------------------------------

    def adopt(self, moved: Sequence[Moved], *, before: Before, received: Received | None = None) -> None:
        """Take responsibility for committed steps of an earlier call.

        Args:
            moved: in the order in which they happened.
            before: what the database was like before them.
            received: what receivers made beside, of a call that has ended; it is written down again, for the next one
                where this is killed.
        """
        self.moved = [*moved]
        self._frame = replace(self._frame, before=before, received=received)
        self._is_begun = True
        if self._frame.is_finished:
            self.journal.reopen(self._frame, [(item.step, item.detail or None, item.entries or ()) for item in moved])

    def recall(self, unfinished: UnfinishedCall) -> None:
        """Take responsibility for what a killed call has left in the database.

        Args:
            unfinished: as its journal tells.

        Raises:
            UndoFailed: the file of a migration that it ran is missing, or is not the same any more.
        """
        broken, frame = unfinished.broken, unfinished.frame
        steps = [*unfinished.steps, *([broken] if broken else [])]
        self._frame = frame
        nodes = nodes_as_run(self._connection, unfinished, steps)
        executor = executor_as_before(
            self._connection,
            [(nodes[step.app, step.name], step) for step in steps if (step.app, step.name) in nodes],
            frame.records or (),
        )
        self.journal.adopt(unfinished)
        known = [step for step in unfinished.steps if (step.app, step.name) in nodes]
        self.adopt(
            [recalled(executor, nodes[step.app, step.name], step, unfinished) for step in known],
            before=frame.before,
            received=frame.received,
        )
        self._is_recalled, self._is_undone = True, unfinished.is_undone
        if broken is not None and not frame.before.is_empty:
            migration = nodes[broken.app, broken.name]
            self._broken = self._log(migration, broken)
            entries = unfinished.entries[broken]
            # Between the last operation's end and the row that says so it may have been recorded.
            is_complete = sum(entry.state is EntryState.DONE for entry in entries) == len(migration.operations)
            self._broken.recall(entries, state_before(executor, migration), is_complete=is_complete)

    def resume(self) -> None:
        """Go on with what was recalled: take back the migration that was broken off, and keep the others.

        Raises:
            UndoFailed: it could not be taken back; the journal keeps what is left of it.
        """
        self._is_resumed = True
        try:
            self.take_back_broken()
        except Exception as failure:
            raise UndoFailed(
                f"what a killed call had begun could not be taken back: {failure}",
                hint="without --resume all that it left is taken back",
            ) from failure

    def take_back_broken(self) -> None:
        """Take back the operations of the migration that was at work outside a transaction. Safe to repeat."""
        broken = self._broken
        if broken is not None and not self.before.is_empty:
            with self._answering(self._aliases.rollback):
                self.journal.check_turn()
                try:
                    self.manner.persist(broken.take_back, unless=lambda: broken.is_parted)
                finally:
                    self._tell(broken.step, broken.left)
        self._broken = None
        if not self.moved:
            self._give_back_received()

    def _give_back_received(self) -> None:
        what = self.manner.persist(self.receivers.give_back)
        self._tell(None, [what] if what else [])

    def _tell(self, step: Step | None, left: Sequence[str]) -> None:
        for what in left:
            self._observer.left(step, what)

    def take_back(self, *, afresh: bool = False) -> list[Moved]:
        """Take back everything, and return the steps, newest first; the call may begin `afresh` then.

        Raises:
            UndoFailed: a step could not be taken back; `steps` names what remains.
        """
        undone: list[Moved] = []
        if not self._is_begun:
            return undone
        try:
            # What this call wrote elsewhere is not committed, so what reverse code writes there must not be either.
            aliases = self._aliases
            with self._answering(aliases.commit if self._frame.is_finished else aliases.drop):
                if not self._is_undone:
                    self.journal.note_undo()
                for duration_ms in self._reversing():
                    # What reverse code wrote elsewhere belongs to its step, whatever becomes of the next.
                    (aliases.commit if self._frame.is_finished else aliases.commit_own)()
                    undone.append(self.moved.pop())
                    self._observer.undone(undone[-1].step, duration_ms, by_rollback=False)
                    if not self.before.is_empty:
                        self._tell(undone[-1].step, undone[-1].left_by(self._reversed))
                purge(self._connection)
                self._prove()
                self.journal.end()
                if afresh:
                    self.journal.lose()
        except SchemaDiffers:
            raise
        except Exception as failure:
            if not self.moved:
                raise UndoFailed(f"what was done could not be taken back: {failure}") from failure
            step = self.moved[-1].step
            self._observer.undo_failed(step, failure)
            raise not_taken_back(step, failure) from failure
        return undone

    def _prove(self) -> None:
        from smooth_migrations.undo.proof import prove  # noqa: PLC0415 - loaded by `seal`

        on_left = partial(self._observer.left, None) if self._is_recalled else None
        try:
            prove(self._connection, self._frame, self.manner, on_left)
        except SchemaDiffers:
            # The next one tells it again, and takes nothing back for it.
            self.journal.note_undo(EntryState.UNDONE)
            raise

    def _reversing(self) -> Iterator[float]:
        if self._is_undone:
            return
        if self.before.is_empty:
            tables = tables_of_all(self._connection)
            self.manner.persist(partial(make_empty_again, self._connection, self.before, tables))
            yield from [0.0] * len(self.moved)
            return
        from smooth_migrations.undo.steps import take_back  # noqa: PLC0415 - loaded by `seal`

        if moved := tuple(self.moved):
            yield from take_back(
                self._connection,
                moved,
                records=self._frame.records or (),
                manner=self.manner,
                log_of=lambda item: self._log(item.migration, item.step),
                on_reversed=self.journal.forget_step,
            )
        self._give_back_received()
        limits, limited = self.manner.limits, self._interruption.lock_limited
        self.manner.persist(partial(restore_rest, self._connection, self._frame, moved, limits, limited))

    @contextmanager
    def _answering(self, end: Callable[[], None]) -> Iterator[None]:
        """Undo in a session of which code has set nothing, and guard the other aliases from reverse code."""
        # A session of SQLite is the database itself where that is in memory.
        connection = self._connection
        may_be_changed = connection.vendor != "sqlite" and not connection.in_atomic_block
        if connection.connection is not None and (may_be_changed or not connection.is_usable()):
            connection.close()
        try:
            with named(connection, self.manner.application_name), self._aliases.guarded():
                self.journal.end_left()
                yield
        except BaseException:
            self._aliases.drop()
            raise
        end()
