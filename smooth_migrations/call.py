"""One call of `migrate` on one database, which is committed or taken back as a whole.

The call does not move anything itself: Django's own command does, and reports each migration through its progress
callback. Nothing else than what that says is ever undone: no rows of others, and of other aliases what has joined.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import NoReturn

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations.aliases import Aliases
from smooth_migrations.errors import (
    Afresh,
    TransactionEnded,
    UndoFailed,
    ended_itself,
    failed_twice,
    is_caused_by_holding,
    is_lock_failure,
    joined,
)
from smooth_migrations.hooks import Hooks
from smooth_migrations.interruption import Interruption
from smooth_migrations.locks.taking import LocksFirst
from smooth_migrations.observer import Observer
from smooth_migrations.options import Options
from smooth_migrations.pausing import pausing
from smooth_migrations.protocol.failpoints import reach
from smooth_migrations.protocol.values import Step
from smooth_migrations.reversibility import can_hold
from smooth_migrations.session import limited, make_ready
from smooth_migrations.undo.caches import forget_content_types
from smooth_migrations.undo.emptiness import look_before
from smooth_migrations.undo.journal import UnfinishedCall
from smooth_migrations.undo.moved import Manner, Moved
from smooth_migrations.undo.permanent import Permanent
from smooth_migrations.undo.transaction import HeldTransaction
from smooth_migrations.undo.unheard import has_ended, parted_by_records, was_sealed

__all__ = ["Call"]


class Call:
    """A call that has moved nothing yet.

    Args:
        connection: the alias to move.
        options: how.
        observer: who is told.

    Attributes:
        aliases: the other ones.
        permanent: what it has committed, or will before its end.
        is_compensated: whether each migration is committed by itself.
        together: unless it was empty, where so many of them are.
        interruption: ends the call from outside.
        locks: takes those that its plan needs together.
        last: the migration that the plan ends with, once that is known.
    """

    def __init__(self, connection: BaseDatabaseWrapper, options: Options, observer: Observer) -> None:
        self._connection, self.options, self._observer = connection, options, observer
        self.interruption = Interruption(connection, options.limits.lock_timeout_ms)
        self.locks = LocksFirst(connection)
        self._pause = pausing(options, observer)
        self.last: Migration | None = None
        self._transaction = HeldTransaction(
            connection, limits=options.limits, application_name=options.application_name, sees_new=options.sees_new
        )
        self.aliases = Aliases(
            connection, mode=options.other_aliases, bind_default=options.bind_default, at_work=self._name_at_work
        )
        self._hooks = Hooks(self._name_at_work)
        self.permanent = Permanent(
            connection,
            options.call_id,
            manner=Manner(options.limits, options.application_name, options.lock_retries, self._pause),
            interruption=self.interruption,
            aliases=self.aliases,
            observer=observer,
        )
        self._open, self._prepared = list[Moved](), list[Moved]()
        self._at_work: Moved | None = None
        self._started_s, self.is_compensated, self.together = 0.0, options.compensated, options.together
        self._outside = ExitStack()

    @property
    def steps(self) -> tuple[Step, ...]:
        """What the call has moved so far, in order."""
        return (*self.permanent.steps, *(item.step for item in self._open))

    @property
    def committed(self) -> tuple[Step, ...]:
        """Of these, what is permanent already."""
        return self.permanent.steps

    @property
    def _gathers(self) -> bool:
        return self.is_compensated and self.together > 1 and self.permanent.before.is_empty

    @property
    def at_work(self) -> Step | None:
        """The migration that runs, or that ran when the call failed."""
        return self._at_work.step if self._at_work else None

    @property
    def locked_ms(self) -> float:
        """For how long strong locks on tables that existed before have been held."""
        return self._transaction.locked_ms

    def run(self, move: Callable[[], float | None]) -> None:
        """Run `move` and hold its result; on any failure take everything back and raise it again.

        `move` is called again after a lock failure, up to `lock_retries` times: it must look at the database afresh.
        It may return since when it has held locks, on the monotonic clock.

        Raises:
            BaseException: what `move` raised. An undo that failed too joins it in an UndoAlsoFailed.
        """
        make_ready(self._connection)
        self.permanent.expect(look_before(self._connection))
        attempt = 0
        while True:
            try:
                self.interruption.arm()
                with (
                    limited(self._connection, self.options.limits),
                    self._hooks.listening(),
                    self.aliases.guarded(),
                    self._connection.execute_wrapper(self.interruption),
                    self._connection.execute_wrapper(self.locks),
                    self.permanent.receivers.listening(lambda: self.permanent.frame),
                ):
                    self._begin()
                    self._transaction.checkpoint(move() or time.monotonic())
                self.interruption.check()
            except BaseException as error:  # noqa: BLE001 - raised again by _fail
                self.interruption.stand_down()
                # What one outside a transaction has done to an empty database goes with everything else alone.
                is_half_done = self.permanent.is_outside and self.permanent.before.is_empty
                failures = self._take_back_open(error)
                is_afresh = isinstance(error, Afresh)
                steps_now = self._may_step(error) and not (is_afresh or is_half_done)
                attempt += not (steps_now or is_afresh)
                is_locked = is_lock_failure(error) and not (self.aliases.has_lost or is_half_done)
                again = steps_now or is_afresh or (is_locked and attempt <= self.options.lock_retries)
                if again and not failures:  # what is tried again registers its undo again
                    failures = self._hooks.call(kept=self.committed)
                if failures or not again:
                    self._fail(error, failures)
                if steps_now:
                    self.is_compensated, self.together = True, 1
                    self._observer.stepping(error)
                if steps_now or is_afresh:
                    continue
                try:
                    self.interruption.arm()
                    with self.interruption.window():
                        self._pause(attempt, error)
                except BaseException as interruption:  # noqa: BLE001 - raised again by _fail
                    # No transaction is open between two attempts, but steps may have been committed before.
                    self._fail(interruption, [])
            else:
                self.interruption.stand_down()
                return

    def recall(self, unfinished: UnfinishedCall, *, goes_on: bool = False) -> None:
        """Take responsibility for what a killed call has left, so that `rollback` takes it back.

        Args:
            unfinished: as the database's journal tells.
            goes_on: whether this call runs from there: what was broken off is taken back at once, the rest stays.

        Raises:
            UndoFailed: the file of a migration that it ran is missing, or what was broken off cannot be taken back.
        """
        frame = unfinished.frame if self.options.compares else replace(unfinished.frame, fingerprint="")
        self.permanent.recall(replace(unfinished, frame=frame))
        if goes_on:
            self.permanent.resume()

    def _may_step(self, error: BaseException) -> bool:
        may_be = self.options.may_step and (self._gathers or not self.is_compensated)
        return may_be and is_caused_by_holding(error, or_by_locks=self._gathers)

    def progress(self, action: str, migration: Migration | None, *, fake: bool) -> None:
        """Take note of what Django's executor does; called from the command's progress callback."""
        if migration is None:
            return
        if action in {"apply_start", "unapply_start"}:
            with self.interruption.held_back():
                self._start(migration, backwards=action == "unapply_start", fake=fake)
            if not self.permanent.is_outside:
                self.interruption.open()
        elif action in {"apply_success", "unapply_success"}:
            self.interruption.close()
            reach("apply.after")
            with self.interruption.held_back():
                self._finish(fake=fake)

    def commit(self, gid: str | None = None) -> list[Callable[[], None]]:
        """Make what is held permanent, and return the `on_commit` callbacks still to run.

        Args:
            gid: only prepare the transaction, under this name; `settle` follows when it has been committed.

        Raises:
            DatabaseError: the held transaction is lost, or cannot be prepared; NotPreparable: not without another one.
        """
        try:
            self.permanent.end()
            held = [*self._open]
            callbacks = self._commit(has_ended, self.aliases.refuse_to_prepare if gid else self.aliases.commit, gid)
        except BaseException:
            # Whoever looks through this connection next must not find what is not committed.
            self._transaction.rollback()
            self.aliases.drop()
            raise
        self._prepared = held
        if gid is None:
            self.settle()
        return callbacks

    def commit_or_undo(self) -> list[Callable[[], None]]:
        """Do as `commit` does, and take back what was permanent before where that fails; raises as `run` does."""
        try:
            return self.commit()
        except BaseException as error:  # noqa: BLE001 - raised again by _fail
            self._roll_back_transaction()
            self._fail(error, [])

    def settle(self) -> None:
        """Note that what was prepared has been committed."""
        self.aliases.commit()
        self.permanent.moved += self._prepared
        self._prepared = []
        self._hooks.forget()

    def _commit(
        self, is_in: Callable[..., bool], before: Callable[[], None] = lambda: None, gid: str | None = None
    ) -> list[Callable[[], None]]:
        journal, steps = self.permanent.journal, [item.step for item in self._open]
        # Each migration has written at least its record.
        if steps or self._transaction.has_written():
            journal.check()
        before()
        was_committed = partial(is_in, self._connection, journal, steps)
        callbacks = self._transaction.commit(gid, was_committed) if self._transaction.is_open else []
        self._open.clear()
        return callbacks

    def rollback(self) -> tuple[Step, ...]:
        """Take back all that the call did, held or committed, and return the steps, newest first.

        What was prepared has been rolled back already.

        Raises:
            UndoFailed: a committed step could not be taken back, and `committed` names what remains; or something
                failed that was registered with `on_rollback`.
        """
        undone, failures = list[Moved](), list[BaseException]()
        try:
            undone += self._roll_back_transaction()
            self.permanent.take_back_broken()
            undone += self.permanent.take_back()
        except Exception as failure:  # noqa: BLE001 - raised below
            failures.append(failure)
        forget_content_types()
        own = self._hooks.call(kept=self.committed)
        if failures or own:
            raise joined(failures, own)
        return tuple(item.step for item in undone)

    def abandon(self) -> None:
        """Let go of what is held without taking back what is permanent or prepared: somebody else settles that."""
        self._prepared.clear()
        self._roll_back_transaction()

    # --- a migration begins and ends --------------------------------------------------------------------------------

    def _start(self, migration: Migration, *, backwards: bool, fake: bool) -> None:
        step = Step(migration.app_label, migration.name, backwards=backwards, fake=fake)
        if not self._may_hold(migration):
            self._seal()
            self.permanent.journal.check_turn()
            log = self.permanent.begin_outside(migration, step)
            self._outside.enter_context(log.watching())
        elif self._gathers and not self.permanent.is_early:
            # A migration that commits itself commits those before it, and what the journal says of them.
            self._seal()
            self._begin()
        self._transaction.identify()
        self.locks.start(migration, alone=self.is_compensated)
        self._at_work = self.permanent.begin(migration, step, self._outside)
        self._started_s = time.monotonic()
        self._observer.started(step, migration)

    def _finish(self, *, fake: bool) -> None:
        if self._at_work is None:
            return
        # Only when it is done is it known whether --fake-initial found it applied already.
        migration, step = self._at_work.migration, replace(self._at_work.step, fake=fake)
        # What was empty is emptied again if its server loses any of it; the last one's commit waits for all of them.
        is_amid = self.permanent.before.is_empty and self.last not in {None, migration}
        gathers = self._gathers and is_amid and len(self._open) + 1 < self.together
        permanent = self.permanent.is_outside or (self.is_compensated and not gathers)
        self._transaction.checkpoint(self._started_s, delays=permanent and is_amid and bool(self.permanent.moved))
        if self.permanent.is_outside:
            self.permanent.finish_outside(migration, step)
        else:
            item = replace(self._at_work, step=step)
            self._open.append(item.noted(self.permanent.journal) if gathers else item)
        self._outside.close()
        self._at_work = None
        if permanent:
            self._seal()
            self._begin()
        self._observer.moved(step, (time.monotonic() - self._started_s) * 1000, committed=self.committed)

    def _may_hold(self, migration: Migration) -> bool:
        # Stepping, because one transaction could not hold them, means to run each as stock `migrate` does.
        return can_hold(migration, self._connection) and (bool(migration.atomic) or not self.is_compensated)

    def _begin(self) -> None:
        # Where DDL commits, a transaction still holds the rows that receivers write after the migrations.
        if self._connection.features.can_rollback_ddl or self.permanent.moved:
            self._transaction.begin()
            self._observer.began(self._connection)

    def _seal(self) -> None:
        callbacks: list[Callable[[], None]] = []
        self.permanent.seal([*self._open], lambda: callbacks.extend(self._commit(was_sealed)))
        if self._transaction.loss is not None:
            raise self._transaction.loss
        for callback in callbacks:
            callback()

    def _roll_back_transaction(self) -> list[Moved]:
        self._transaction.rollback()
        self.aliases.rollback()
        undone = [*reversed(self._prepared), *reversed(self._open)]
        self._open, self._prepared = [], []
        for item in undone:
            self._observer.undone(item.step, 0.0, by_rollback=True)
        return undone

    def _take_back_open(self, error: BaseException) -> list[BaseException]:
        """Undo the open transaction and the broken migration; return what went wrong with that, if anything."""
        self._outside.close()
        duration_ms = (time.monotonic() - self._started_s) * 1000 if self._at_work else 0.0
        if not isinstance(error, Afresh):
            self._observer.failed(self.at_work, duration_ms, error)
        try:
            self._transaction.rollback(error)
            if isinstance(error, TransactionEnded) or self._transaction.was_committed():
                self._keep_what_was_committed()
            self._roll_back_transaction()
            self.permanent.take_back_broken()
            if isinstance(error, Afresh):  # all of it is done again, from the beginning
                self.permanent.take_back(afresh=True)
            forget_content_types()
        except Exception as failure:  # noqa: BLE001 - it joins the cause
            if self._at_work:
                self._observer.undo_failed(self._at_work.step, failure)
            return [failure]
        return []

    def _keep_what_was_committed(self) -> NoReturn:
        """Find out what a COMMIT within a migration has made permanent, to be reversed.

        Raises:
            UndoFailed: always: nobody knows how much of the migration itself came before it.
        """
        kept, self._open = parted_by_records(self._connection, self._open)
        self._roll_back_transaction()
        self.permanent.adopt([*self.permanent.moved, *kept], before=self.permanent.before)
        raise ended_itself(self.at_work)

    def _fail(self, error: BaseException, failures: list[BaseException]) -> NoReturn:
        is_broken, doubts = bool(failures), self._transaction.doubts()
        try:
            self.permanent.take_back()
        except UndoFailed as failure:
            failures.append(failure)
        forget_content_types()
        if not doubts:  # what they would undo outside the database may be wanted
            failures += self._hooks.call(kept=(*self.committed, self.at_work) if is_broken else self.committed)
        if failures := [*doubts, *failures]:
            raise failed_twice(error, failures) from None
        raise error

    def _name_at_work(self) -> str | None:
        return str(self._at_work.step) if self._at_work else None
