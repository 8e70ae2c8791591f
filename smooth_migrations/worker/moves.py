"""What a worker does to its targets: apply and hold, commit, roll back, undo."""

import re
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations import protocol
from smooth_migrations.call import Call
from smooth_migrations.errors import UndoFailed, describe
from smooth_migrations.lease import Holder, release_of
from smooth_migrations.options import Options
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.failures import NOT_HELD
from smooth_migrations.protocol.names import session_name
from smooth_migrations.replay import Shelf
from smooth_migrations.segments import AheadCall, RehearsedCall
from smooth_migrations.session import commit_each, named
from smooth_migrations.turn import FOR_ITSELF_S, Turn
from smooth_migrations.undo.journal import UnfinishedCall
from smooth_migrations.undo.prepared import PrepareUnsure
from smooth_migrations.undo.transaction import Limits, run_callbacks
from smooth_migrations.worker.movement import Movement
from smooth_migrations.worker.physical import refuse_another
from smooth_migrations.worker.reporters import Printer, Pulse, Reporter
from smooth_migrations.worker.undoing import Undoing

__all__ = ["Moves"]

_REASON = "interrupted by the coordinator"
# The name that a run is given when it begins.
_BEGUN_AT = re.compile(r"\d{8}T\d{6}-[0-9a-f]+")
_FOR_YOUNGER_S = 5.0


class Moves:
    """The calls that this worker holds, by database.

    Args:
        say: sends one event.
    """

    def __init__(self, say: Callable[[protocol.Event], None]) -> None:
        self._say = say
        self._held: dict[str, _Held] = {}
        self._undone: dict[str, Undoing] = {}
        self._shelf = Shelf()
        self._lock = threading.Lock()
        self._at_work: tuple[int, Call] | None = None
        self._interrupted: set[int | None] = set()
        self._has_stepped_down = False

    def apply(self, command: protocol.Apply) -> protocol.Event:
        """Run every pending migration and hold the result."""
        connection = connections[command.alias]
        reporter = Reporter(self._say, command)
        call = self._call(command, connection, reporter)
        movement = Movement(command, connection, call, self._shelf)
        with self._lock:
            self._at_work = (command.id, call)
            if self._interrupted & {command.id, None}:
                call.interruption.ask(_REASON)
        turn: Turn | None = None
        try:
            with self._pulse(command):
                others = [held.call.aliases for held in self._held.values()]
                for aliases in others:
                    aliases.refuse_to_release(connection)
                for aliases in others:
                    aliases.release(connection)
                refuse_another(connection, command.physical)
                turn = self._turn(connection, command, call)
                # By its name whoever settles a lost run ends its sessions, also those that commit step by step.
                with movement.watching(), named(connection, call.options.application_name):
                    call.run(partial(movement.run, turn.epoch))
        except BaseException as error:  # noqa: BLE001 - every failure is an answer; the call has undone itself
            if turn is not None:
                turn.end()
            return self._failed(command, call, error)
        finally:
            self._at_work = None
            # What one commit cannot hold on one database it cannot on its like.
            self._has_stepped_down = self._has_stepped_down or call.together < call.options.together
        self._held[command.database] = _Held(command.alias, call, reporter, turn)
        return protocol.Done(
            id=command.id,
            steps=tuple(replace(step, digest=reporter.digests.get(step, "")) for step in call.steps),
            received=movement.made,
            committed=len(call.committed),
            locked_ms=call.locked_ms,
            before=call.permanent.before,
            measured=movement.measured,
            held_back=movement.held_back(),
            contracted=tuple(movement.contracted),
        )

    def _call(self, command: protocol.Apply, connection: BaseDatabaseWrapper, reporter: Reporter) -> Call:
        if (earlier := self._held.pop(command.database, None)) is not None:
            # What it has committed is in the database's journal, from which this call goes on.
            earlier.turn.end(goes_on=True)
        options = _options(command, compensated=command.compensated)
        if self._has_stepped_down:
            options = replace(options, together=1)
        if command.is_ahead:
            # What it would write elsewhere could not wait there for the decision.
            return AheadCall(connection, replace(options, other_aliases=protocol.OtherAliases.REFUSE), reporter)
        return (RehearsedCall if command.measures else Call)(connection, options, reporter)

    def _turn(self, connection: BaseDatabaseWrapper, command: protocol.Apply, call: Call) -> Turn:
        def on_unfinished(unfinished: UnfinishedCall) -> Call:
            if command.measures:
                raise UndoFailed(
                    f"the run {unfinished.call_id} was killed here, and what it left is still to be taken back",
                    hint="smooth-orchestrate recover PLAN, or manage.py apply_migrations, whichever was killed",
                )
            if command.goes_on and unfinished.call_id == command.run_id and unfinished.can_go_on:
                return call
            print(f"taking back what the run {unfinished.call_id} left here when it was killed", flush=True)  # noqa: T201 - becomes a log line
            return Call(connection, _options(command, compensated=True), Printer())

        def on_wait(holder: Holder) -> None:
            is_ours = holder.owner.name == command.run_id
            whom = "this run, in a worker that was lost" if is_ours else "a run that has begun later, and is to end"
            print(f"waiting for {whom}: {holder}", flush=True)  # noqa: T201 - as above

        turn = Turn.begin(
            connection,
            call,
            owner=command.run_id,
            patience_s=partial(_patience_s, command),
            after=command.epoch,
            on_wait=on_wait,
            on_unfinished=on_unfinished,
        )
        self._say(protocol.Leased(id=command.id, epoch=turn.epoch, release=turn.release))
        return turn

    def interrupt(self, command_id: int | None) -> None:
        """End this command, or whichever is at work, at once or as soon as it begins; called from another thread."""
        with self._lock:
            self._interrupted.add(command_id)
            if self._at_work is not None and command_id in {None, self._at_work[0]}:
                self._at_work[1].interruption.ask(_REASON)

    def strike(self) -> None:
        """Raise in the code of a migration at work what was asked for; a signal's handler.

        Raises:
            Interrupted: it is at work, and somebody asked.
        """
        at_work = self._at_work
        if at_work is not None:
            at_work[1].interruption.strike()

    def holds(self, alias: str) -> bool:
        """Return whether a transaction is open on an alias, or something committed step by step awaits its end."""
        open_ones = [held.alias for held in self._held.values() if not held.is_prepared]
        return alias in (*open_ones, *(undoing.alias for undoing in self._undone.values()))

    def commit(self, command: protocol.Commit) -> protocol.Event:
        """Make what is held permanent."""
        if (undoing := self._undone.pop(command.database, None)) is not None:
            return self._commit_undo(command, undoing)
        held = self._held.pop(command.database, None)
        if held is None:
            _give_back(command)
            return _nothing_held(command)
        call = held.call
        locked_ms = call.locked_ms
        try:
            if held.is_prepared:
                callbacks = held.callbacks
                call.settle()
            else:
                with passing("commit"):
                    callbacks = call.commit()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            return protocol.Failed(id=command.id, error=describe(error))
        finally:
            held.turn.end()
        run_callbacks(callbacks)
        return protocol.Done(id=command.id, steps=call.steps, committed=len(call.steps), locked_ms=locked_ms)

    def rollback(self, command: protocol.Rollback) -> protocol.Event:
        """Take back what is held, and what was committed step by step."""
        if (undoing := self._undone.pop(command.database, None)) is not None:
            undoing.give_up(None)
            return protocol.Done(id=command.id)
        held = self._held.pop(command.database, None)
        if held is None:
            _give_back(command)
            return protocol.Done(id=command.id)
        call = held.call
        # The coordinator hears what belongs to the command that it waits for.
        held.reporter.command = command
        try:
            with self._pulse(command), passing("rollback"):
                undone = call.rollback()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            return protocol.Failed(id=command.id, error=describe(error), restored=False, remaining=call.committed)
        finally:
            held.turn.end()
        return protocol.Done(id=command.id, unapplied=undone)

    def prepare(self, command: protocol.Prepare) -> protocol.Event:
        """Leave the fate of what is held to the coordinator's decision, if it is still there."""
        if command.database in self._undone:
            return _answered(command)
        held = self._held.get(command.database)
        if held is None:
            return _nothing_held(command)
        renewal = ""
        try:
            if command.gid is not None:
                held.callbacks, held.is_prepared = held.call.commit(command.gid), True
                if command.keeper is not None:
                    renewal = held.turn.rest(command.keeper)
            else:
                with passing("prepare"):
                    _ask(command.alias)
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            return protocol.Failed(id=command.id, error=describe(error), restored=not _is_unsure(error))
        held.awaits_decision = True
        return protocol.Done(id=command.id, renewal=renewal)

    def undo(self, command: protocol.Undo) -> protocol.Event:
        """Take committed steps back that another worker, or an earlier phase, made."""
        connection = connections[command.alias]
        undoing = Undoing(connection, command, _options(command, compensated=True), self._say)
        try:
            with self._pulse(command):
                undoing.run()
                if not command.holds:
                    undoing.finish(command)
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            info = describe(error)
            if undoing.is_hindered_by_holding(error):
                info = replace(info, type=NOT_HELD)
            undoing.give_up(error)
            return protocol.Failed(id=command.id, error=info, restored=False, remaining=undoing.remaining)
        if undoing.is_open:
            self._undone[command.database] = undoing
        else:
            undoing.end()
        return protocol.Done(
            id=command.id,
            unapplied=undoing.undone,
            lost=undoing.lost,
            is_held=undoing.is_open,
            is_accepted=undoing.is_accepted,
        )

    def _commit_undo(self, command: protocol.Commit, undoing: Undoing) -> protocol.Event:
        try:
            with self._pulse(command):
                undoing.finish(command)
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            undoing.give_up(error)
            return protocol.Failed(id=command.id, error=describe(error), restored=False, remaining=undoing.remaining)
        undoing.end()
        return protocol.Done(id=command.id, unapplied=undoing.undone)

    def rollback_all(self) -> None:
        """Take back whatever is still held; the coordinator is gone or has done with this worker."""
        while self._undone:
            self._undone.popitem()[1].give_up(None)
        for database, held in list(self._held.items()):
            del self._held[database]
            try:
                if held.awaits_decision:
                    held.call.abandon()
                else:
                    held.call.rollback()
            except Exception as error:  # noqa: BLE001 - the others are still to be rolled back
                for step in held.call.committed[-1:]:
                    self._say(protocol.UnapplyFailed(id=held.reporter.command.id, step=step, error=describe(error)))
            finally:
                # What is prepared keeps its lease, which is the coordinator's by now.
                if not held.is_prepared:
                    held.turn.end()

    def _pulse(self, command: protocol.Command) -> AbstractContextManager[None]:
        # An undo takes as long as what it undoes, and is no more to be taken for a worker that hangs.
        return connections[command.alias].execute_wrapper(Pulse(self._say, command.id))

    def _failed(self, command: protocol.Apply, call: Call, error: BaseException) -> protocol.Failed:
        at_work = str(call.at_work) if call.at_work else None
        info = replace(describe(error), migration=at_work)
        restored = not call.committed and not info.causes
        return protocol.Failed(id=command.id, error=info, restored=restored, remaining=call.committed)


def _patience_s(command: protocol.Apply, holder: Holder) -> float:
    """Return how long a run waits for who holds a lease: a little, for a run that has begun after it.

    Of two that each hold what the other one wants, the younger ends, and the older goes on; else both might end. And
    until it expires for itself, which had its turn in a worker that is lost, perhaps on another machine.
    """
    names = (command.run_id, holder.owner.name)
    if command.epoch is not None and names[0] == names[1]:
        return FOR_ITSELF_S
    return _FOR_YOUNGER_S if all(map(_BEGUN_AT.fullmatch, names)) and names[0] < names[1] else 0.0


def _is_unsure(error: BaseException) -> bool:
    """Return whether it is unknown what was prepared, also where something else failed because of that."""
    earlier: BaseException | None = error
    while earlier is not None and not isinstance(earlier, PrepareUnsure):
        earlier = earlier.__context__
    return earlier is not None


def _ask(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT 1")


def _answered(command: protocol.Prepare) -> protocol.Event:
    try:
        _ask(command.alias)
    except Error as error:
        return protocol.Failed(id=command.id, error=describe(error))
    return protocol.Done(id=command.id)


def _give_back(command: protocol.Commit | protocol.Rollback) -> None:
    """Give back the lease of a run that a lost worker has held for it; where that fails, it expires."""
    if command.run_id:
        connection = connections[command.alias]
        with suppress(Error), passing("lease.release"):
            commit_each(connection)
            release_of(connection, command.run_id)


def _nothing_held(command: protocol.Command) -> protocol.Failed:
    error = protocol.ErrorInfo("nothing_held", f"no open transaction is held on {command.database}")
    return protocol.Failed(id=command.id, error=error)


def _options(command: protocol.Apply | protocol.Undo, *, compensated: bool) -> Options:
    return Options(
        limits=Limits(command.lock_timeout_ms, command.statement_timeout_ms),
        lock_retries=command.lock_retries,
        compensated=compensated,
        together=command.together if isinstance(command, protocol.Apply) else 1,
        may_step=isinstance(command, protocol.Apply) and command.may_step,
        bind_default=command.bind_default,
        other_aliases=command.other_aliases,
        compares=command.compares,
        expands=isinstance(command, protocol.Apply) and command.expands,
        sees_new=isinstance(command, protocol.Undo) or command.back is not None,
        application_name=session_name(command.run_id, command.alias),
        call_id=command.run_id,
    )


@dataclass(slots=True)
class _Held:
    alias: str
    call: Call
    reporter: Reporter
    turn: Turn
    awaits_decision: bool = False
    is_prepared: bool = False
    callbacks: list[Callable[[], None]] = field(default_factory=list)
