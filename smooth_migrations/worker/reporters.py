"""What a worker tells of a call at work: to its coordinator, or as text where it is nobody's command."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations import protocol
from smooth_migrations.errors import describe
from smooth_migrations.files import digest_of
from smooth_migrations.protocol import Step
from smooth_migrations.worker.channel import end_if_copy, mark_output

__all__ = ["Printer", "Pulse", "Reporter"]


class Reporter:
    """Tells the coordinator what a call does, and marks the output of each migration.

    Attributes:
        digests: of the files of the migrations that have begun.
    """

    def __init__(self, say: Callable[[protocol.Event], None], command: protocol.Command) -> None:
        self._say = say
        self.command = command
        self.digests: dict[Step, str] = {}
        self._told_of: object = None
        self._permanent: set[Step] = set()

    def began(self, connection: BaseDatabaseWrapper) -> None:
        """Tell which session is at work, once for each."""
        raw = connection.connection
        info = getattr(raw, "info", None)
        if connection.vendor == "postgresql" and info is not None and raw is not self._told_of:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT extract(epoch FROM backend_start)::text FROM pg_stat_get_activity(pg_backend_pid())"
                )
                (started,) = cursor.fetchone() or ("",)
            self._say(protocol.Session(id=self.command.id, backend_pid=info.backend_pid, backend_start=started))
            self._told_of = raw

    def started(self, step: Step, migration: Migration) -> None:
        """Tell that a migration begins, and mark what is printed from here on as its own."""
        self.digests[step] = digest_of(migration)
        mark_output(self.command.database, step.name)
        self._say(protocol.MigrationStarted(id=self.command.id, step=step))

    def moved(self, step: Step, duration_ms: float, *, committed: Sequence[Step]) -> None:
        """Tell that it has run, and what has become permanent since this was last told."""
        earlier = tuple(each for each in committed if each != step and each not in self._permanent)
        self._permanent = {*committed}
        self._say(
            protocol.MigrationApplied(
                id=self.command.id,
                step=step,
                duration_ms=duration_ms,
                committed=step in self._permanent,
                earlier=earlier,
            )
        )
        mark_output(self.command.database, None)

    def failed(self, step: Step | None, duration_ms: float, error: BaseException) -> None:
        """Tell that it failed."""
        if step is not None:
            info = describe(error, migration=str(step))
            self._say(protocol.MigrationFailed(id=self.command.id, step=step, duration_ms=duration_ms, error=info))

    def undone(self, step: Step, duration_ms: float, *, by_rollback: bool) -> None:
        """Tell that a committed step was reversed."""
        if not by_rollback:
            self._permanent.discard(step)
            self._say(protocol.MigrationUnapplied(id=self.command.id, step=step, duration_ms=duration_ms))

    def undo_failed(self, step: Step, error: BaseException) -> None:
        """Tell that one could not be."""
        self._say(protocol.UnapplyFailed(id=self.command.id, step=step, error=describe(error)))

    def left(self, step: Step | None, what: str) -> None:
        """Print what may stay, which becomes a log line."""
        print(f"{step or 'before the first migration'}: {what}", flush=True)  # noqa: T201 - becomes a log line

    def stepping(self, error: BaseException) -> None:
        """Tell that each migration is committed by itself from here on."""
        self._say(protocol.Stepping(id=self.command.id, error=describe(error)))

    def retrying(self, attempt: int, delay_s: float, error: BaseException) -> None:
        """Tell that another attempt follows."""
        self._say(
            protocol.LockRetry(id=self.command.id, attempt=attempt, delay_ms=delay_s * 1000, error=describe(error))
        )


class Pulse:
    """A sign of life after a statement, at most one a second: what tells slow work from a worker that hangs."""

    def __init__(self, say: Callable[[protocol.Event], None], command_id: int) -> None:
        self._say = say
        self._command_id = command_id
        self._statements = 0
        self._said_s = time.monotonic()
        self._pid = os.getpid()

    def __call__(self, execute: Callable[..., Any], sql: str, params: object, many: object, context: object) -> Any:  # noqa: ANN401 - Django's wrapper protocol
        """Run a statement; one of Django's execute wrappers."""
        end_if_copy(self._pid)
        result = execute(sql, params, many, context)
        self._statements += 1
        if time.monotonic() - self._said_s > 1.0:
            self._said_s = time.monotonic()
            self._say(protocol.Progress(id=self._command_id, statements=self._statements))
        return result


class Printer:
    """Prints what is taken back of an earlier call, which the log gets as captured output."""

    def began(self, connection: BaseDatabaseWrapper) -> None:
        """Print nothing."""

    def started(self, step: Step, migration: Migration) -> None:
        """Print nothing."""

    def moved(self, step: Step, duration_ms: float, *, committed: Sequence[Step]) -> None:
        """Print nothing."""

    def failed(self, step: Step | None, duration_ms: float, error: BaseException) -> None:
        """Print nothing."""

    def undone(self, step: Step, duration_ms: float, *, by_rollback: bool) -> None:
        """Print which step."""
        del duration_ms, by_rollback
        print(f"took back {step}", flush=True)  # noqa: T201 - becomes a log line

    def undo_failed(self, step: Step, error: BaseException) -> None:
        """Print which step stays, and why."""
        print(f"{step} could not be taken back: {error}", flush=True)  # noqa: T201 - becomes a log line

    def left(self, step: Step | None, what: str) -> None:
        """Print what may stay."""
        print(f"{step or 'before the first migration'}: {what}", flush=True)  # noqa: T201 - becomes a log line

    def stepping(self, error: BaseException) -> None:
        """Print nothing."""

    def retrying(self, attempt: int, delay_s: float, error: BaseException) -> None:
        """Print nothing."""
