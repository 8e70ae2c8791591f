"""What a worker does to its targets: apply and hold, commit, roll back, undo."""

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor

from smooth_migrations import protocol
from smooth_migrations.call import Call, Options
from smooth_migrations.errors import describe
from smooth_migrations.management.commands.apply_migrations import Command as ApplyMigrations
from smooth_migrations.marker import write_marker
from smooth_migrations.protocol import Step
from smooth_migrations.undo.journal import unfinished_call
from smooth_migrations.undo.steps import Moved
from smooth_migrations.undo.transaction import Limits
from smooth_migrations.worker.channel import mark_output

__all__ = ["Moves"]

_REASON = "interrupted by the coordinator"
_QUIET = {
    "app_label": None,
    "migration_name": None,
    "interactive": False,
    "fake": False,
    "fake_initial": False,
    "plan": False,
    "run_syncdb": False,
    "check_unapplied": False,
    "prune": False,
    "verbosity": 0,
}


class Moves:
    """The calls that this worker holds, by database.

    Args:
        say: sends one event.
    """

    def __init__(self, say: Callable[[protocol.Event], None]) -> None:
        self._say = say
        self._held: dict[str, tuple[Call, _Reporter]] = {}
        self._lock = threading.Lock()
        self._at_work: tuple[int, Call] | None = None
        self._interrupted: set[int | None] = set()

    def apply(self, command: protocol.Apply) -> protocol.Event:
        """Run every pending migration and hold the result."""
        connection = connections[command.alias]
        reporter = _Reporter(self._say, command)
        call = Call(connection, _options(command, compensated=command.compensated), reporter)

        def move() -> None:
            ApplyMigrations().move(call, database=command.alias, **_QUIET)
            if call.steps:
                write_marker(connection, command.run_id, command.database, command.epoch, command.digest)

        with self._lock:
            self._at_work = (command.id, call)
            if self._interrupted & {command.id, None}:
                call.interruption.ask(_REASON)
        try:
            with connection.execute_wrapper(_Pulse(self._say, command.id)):
                call.run(move)
        except BaseException as error:  # noqa: BLE001 - every failure is an answer; the call has undone itself
            return self._failed(command, call, error)
        finally:
            self._at_work = None
        self._held[command.database] = (call, reporter)
        return protocol.Done(
            id=command.id,
            steps=call.steps,
            committed=len(call.committed),
            locked_ms=call.locked_ms,
            before=call.before,
        )

    def interrupt(self, command_id: int | None) -> None:
        """End this command, or whichever is at work, at once or as soon as it begins; called from another thread."""
        with self._lock:
            self._interrupted.add(command_id)
            if self._at_work is not None and command_id in {None, self._at_work[0]}:
                self._at_work[1].interruption.ask(_REASON)

    @property
    def is_disobedient(self) -> bool:
        """Whether what was to be ended still goes forward."""
        at_work = self._at_work
        return at_work is not None and not at_work[1].interruption.has_stood_down

    def strike(self) -> None:
        """Raise in the code of a migration at work what was asked for; a signal's handler.

        Raises:
            Interrupted: it is at work, and somebody asked.
        """
        at_work = self._at_work
        if at_work is not None:
            at_work[1].interruption.strike()

    def commit(self, command: protocol.Commit) -> protocol.Event:
        """Make what is held permanent."""
        held = self._held.pop(command.database, None)
        if held is None:
            return _nothing_held(command)
        call, _reporter = held
        locked_ms = call.locked_ms
        try:
            callbacks = call.commit()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            return protocol.Failed(id=command.id, error=describe(error))
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - what is committed stays so; the log has the traceback
                traceback.print_exc()
        return protocol.Done(id=command.id, steps=call.steps, committed=len(call.steps), locked_ms=locked_ms)

    def rollback(self, command: protocol.Rollback) -> protocol.Event:
        """Take back what is held, and what was committed step by step."""
        held = self._held.pop(command.database, None)
        if held is None:
            return protocol.Done(id=command.id)
        call, reporter = held
        # The coordinator hears what belongs to the command that it waits for.
        reporter.command = command
        try:
            undone = call.rollback()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            return protocol.Failed(id=command.id, error=describe(error), restored=False, remaining=call.committed)
        return protocol.Done(id=command.id, unapplied=undone)

    def ping(self, command: protocol.Ping) -> protocol.Event:
        """Say whether what is held is still there."""
        if command.database not in self._held:
            return _nothing_held(command)
        try:
            with connections[command.alias].cursor() as cursor:
                cursor.execute("SELECT 1")
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            return protocol.Failed(id=command.id, error=describe(error))
        return protocol.Done(id=command.id)

    def undo(self, command: protocol.Undo) -> protocol.Event:
        """Take committed steps back that another worker, or an earlier phase, made."""
        connection = connections[command.alias]
        call = Call(connection, _options(command, compensated=True), _Reporter(self._say, command))
        try:
            # The database's own journal knows more than a coordinator whose worker was lost.
            unfinished = unfinished_call(connection)
            if unfinished is not None and unfinished.call_id == command.run_id:
                call.recall(unfinished)
            else:
                nodes = MigrationExecutor(connection).loader.disk_migrations
                call.adopt([Moved(nodes[step.app, step.name], step) for step in command.steps], before=command.before)
            undone = call.rollback()
        except Exception as error:  # noqa: BLE001 - every failure is an answer
            remaining = call.committed or command.steps
            return protocol.Failed(id=command.id, error=describe(error), restored=False, remaining=remaining)
        return protocol.Done(id=command.id, unapplied=undone)

    def rollback_all(self) -> None:
        """Take back whatever is still held; the coordinator is gone or has done with this worker."""
        for database, (call, reporter) in list(self._held.items()):
            del self._held[database]
            try:
                call.rollback()
            except Exception as error:  # noqa: BLE001 - the others are still to be rolled back
                self._say(
                    protocol.UnapplyFailed(id=reporter.command.id, step=call.committed[-1], error=describe(error))
                )

    def _failed(self, command: protocol.Apply, call: Call, error: BaseException) -> protocol.Failed:
        at_work = str(call.at_work) if call.at_work else None
        info = replace(describe(error), migration=at_work)
        restored = not call.committed and not info.causes
        return protocol.Failed(id=command.id, error=info, restored=restored, remaining=call.committed)


def _nothing_held(command: protocol.Command) -> protocol.Failed:
    error = protocol.ErrorInfo("nothing_held", f"no open transaction is held on {command.database}")
    return protocol.Failed(id=command.id, error=error)


def _options(command: protocol.Apply | protocol.Undo, *, compensated: bool) -> Options:
    return Options(
        limits=Limits(command.lock_timeout_ms, command.statement_timeout_ms),
        lock_retries=command.lock_retries,
        compensated=compensated,
        may_step=isinstance(command, protocol.Apply) and command.may_step,
        bind_default=command.bind_default,
        other_aliases=command.other_aliases,
        application_name=f"smooth:{command.run_id}:{command.alias}",
        call_id=command.run_id,
    )


class _Reporter:
    """Tells the coordinator what a call does, and marks the output of each migration."""

    def __init__(self, say: Callable[[protocol.Event], None], command: protocol.Command) -> None:
        self._say = say
        self.command = command

    def began(self, connection: BaseDatabaseWrapper) -> None:
        info = getattr(connection.connection, "info", None)
        if connection.vendor == "postgresql" and info is not None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT extract(epoch FROM backend_start)::text FROM pg_stat_activity WHERE pid = pg_backend_pid()"
                )
                (started,) = cursor.fetchone() or ("",)
            self._say(protocol.Session(id=self.command.id, backend_pid=info.backend_pid, backend_start=started))

    def started(self, step: Step, _migration: Migration) -> None:
        mark_output(self.command.database, step.name)
        self._say(protocol.MigrationStarted(id=self.command.id, step=step))

    def moved(self, step: Step, duration_ms: float, *, committed: bool) -> None:
        self._say(
            protocol.MigrationApplied(id=self.command.id, step=step, duration_ms=duration_ms, committed=committed)
        )
        mark_output(self.command.database, None)

    def failed(self, step: Step | None, duration_ms: float, error: BaseException) -> None:
        if step is not None:
            info = describe(error, migration=str(step))
            self._say(protocol.MigrationFailed(id=self.command.id, step=step, duration_ms=duration_ms, error=info))

    def undone(self, step: Step, duration_ms: float, *, by_rollback: bool) -> None:
        if not by_rollback:
            self._say(protocol.MigrationUnapplied(id=self.command.id, step=step, duration_ms=duration_ms))

    def undo_failed(self, step: Step, error: BaseException) -> None:
        self._say(protocol.UnapplyFailed(id=self.command.id, step=step, error=describe(error)))

    def stepping(self, error: BaseException) -> None:
        self._say(protocol.Stepping(id=self.command.id, error=describe(error)))

    def retrying(self, attempt: int, delay_s: float, error: BaseException) -> None:
        self._say(
            protocol.LockRetry(id=self.command.id, attempt=attempt, delay_ms=delay_s * 1000, error=describe(error))
        )


class _Pulse:
    """A sign of life after a statement, at most one a second: what tells slow work from a worker that hangs."""

    def __init__(self, say: Callable[[protocol.Event], None], command_id: int) -> None:
        self._say = say
        self._command_id = command_id
        self._statements = 0
        self._said_s = time.monotonic()

    def __call__(self, execute: Callable[..., Any], sql: str, params: object, many: object, context: object) -> Any:  # noqa: ANN401 - Django's wrapper protocol
        result = execute(sql, params, many, context)
        self._statements += 1
        if time.monotonic() - self._said_s > 1.0:
            self._said_s = time.monotonic()
            self._say(protocol.Progress(id=self._command_id, statements=self._statements))
        return result
