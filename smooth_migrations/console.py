"""What `apply_migrations` prints when a call fails; on success it prints what `migrate` prints."""

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from django.core.management.base import OutputWrapper
from django.core.management.color import Style
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations.errors import is_lock_failure, words_of
from smooth_migrations.protocol.values import Step
from smooth_migrations.streams import UNWRITABLE

if TYPE_CHECKING:
    from smooth_migrations.contract_queue import Queued
    from smooth_migrations.undo.choice import Choice
    from smooth_migrations.undo.journal import UnfinishedCall
    from smooth_migrations.waits import Blocker, Progress

__all__ = ["ConsoleReport"]


class ConsoleReport:
    """An observer that prints.

    Args:
        stdout: the command's output.
        style: the command's colours.
        verbosity: 0 prints nothing.
        show_queries: whether a lock wait is told with the statements of those who are waited for.

    Attributes:
        taken_back: the steps that were undone, in that order.
    """

    def __init__(self, stdout: OutputWrapper, style: Style, *, verbosity: int, show_queries: bool = False) -> None:
        self._stdout = stdout
        self._style = style
        self._verbosity = verbosity
        self._show_queries = show_queries
        self._connection: BaseDatabaseWrapper | None = None
        self.taken_back: list[Step] = []
        self._before: dict[str, str] = {}
        self._failed = False
        self._heading_due = False

    def began(self, connection: BaseDatabaseWrapper) -> None:
        """Remember what may turn out to be locked; `migrate` prints nothing either."""
        self._connection = connection

    def started(self, step: Step, migration: Migration) -> None:
        """Remember the state that this migration's app was in before the call."""
        if step.backwards:
            before = step.name
        else:
            before = ", ".join(name for app, name in migration.dependencies if app == step.app) or "zero"
        self._before.setdefault(step.app, before)

    def moved(self, step: Step, duration_ms: float, *, committed: Sequence[Step]) -> None:
        """Print nothing: `migrate` says OK."""

    def failed(self, step: Step | None, duration_ms: float, error: BaseException) -> None:
        """Print the cause, when anything had begun."""
        del duration_ms
        self._failed = self._heading_due = bool(self._before)
        if not self._failed:
            return
        self._write(" FAIL" if step else "FAIL", self._style.ERROR)
        self._write("The migration has failed.", self._style.ERROR)
        self._write(words_of(error), self._style.ERROR)
        if self._connection is not None:
            self.locked(self._connection, error)

    def held_back(self, queued: "Sequence[Queued]") -> None:
        """Print which contract halves wait for `finalise_migrations`."""
        if queued:
            self._write("Held back for finalise_migrations:", self._style.MIGRATE_HEADING)
        for item in queued:
            self._write(f"  {item}")

    def undone(self, step: Step, duration_ms: float, *, by_rollback: bool) -> None:
        """Print one line a step."""
        del duration_ms, by_rollback
        self.taken_back.append(step)
        if self._heading_due:
            self._heading_due = False
            states = ", ".join(f"{app} {before}" for app, before in self._before.items())
            self._write("Operations to perform:", self._style.MIGRATE_HEADING)
            self._write(f"  Rolling back to the last migration state: {states}", self._style.MIGRATE_LABEL)
            self._write("Running rollback:", self._style.MIGRATE_HEADING)
        verb = "Applying" if step.backwards else "Unapplying"
        self._write(f"  {verb} {step}...", self._style.MIGRATE_LABEL, ending=" ")
        self._write("OK", self._style.SUCCESS)

    def undo_failed(self, step: Step, error: BaseException) -> None:
        """Print which step stays, and why."""
        self._write(f"  {step} could not be taken back: {error}", self._style.ERROR)

    def left(self, step: Step | None, what: str) -> None:
        """Print what may stay."""
        self._write(f"  {step or 'before the first migration'}: {what}", self._style.WARNING)

    def stepping(self, error: BaseException) -> None:
        """Print that each migration is committed by itself from here on."""
        self._write(f"  One transaction cannot hold this ({error}).", self._style.WARNING)
        self._write("  Going on migration by migration; a failure is reversed step by step.", self._style.WARNING)

    def retrying(self, attempt: int, delay_s: float, error: BaseException) -> None:
        """Print that the whole transaction is tried again."""
        self._write(f"  {error}: trying again in {delay_s:.1f} s (attempt {attempt})", self._style.WARNING)

    def held(self, holder: object) -> None:
        """Print whose turn is waited for."""
        self._stdout.write(f"Waiting for another run: {holder}")
        self._stdout.flush()

    def waiting(self, blockers: Sequence["Blocker"]) -> None:
        """Print who has what the statement at work waits for."""
        self._write("")
        for blocker in blockers:
            who = ", ".join(part for part in (blocker.application, blocker.state) if part)
            text = f"  Waiting for a lock: pid {blocker.pid} ({who}), its query {blocker.query_age_s:.1f} s old"
            if self._show_queries and blocker.query:
                text += f": {' '.join(blocker.query.split())}"
            self._write(text, self._style.WARNING)

    def locked(self, connection: BaseDatabaseWrapper, error: BaseException) -> None:
        """Print that a SQLite file is locked, if that is what the error says; nobody can be asked by whom."""
        if connection.vendor == "sqlite" and is_lock_failure(error):
            self._write(f"The file {connection.settings_dict['NAME']} is locked by another session.", self._style.ERROR)

    def progress(self, progress: "Progress") -> None:
        """Print how far the building of an index has come."""
        percent = "" if progress.percent is None else f", {progress.percent:.0f} %"
        self._write(f"\n  {progress.index}: {progress.phase}{percent}", self._style.MIGRATE_LABEL)

    def undo_of_this_call(self, choices: Sequence["Choice"]) -> None:
        """Print which undo each migration has, at verbosity 2 and above."""
        if self._verbosity > 1 and choices:
            self._write("Undo, should anything fail:", self._style.MIGRATE_HEADING)
            for choice in choices:
                self._write(f"  {choice.way}: {', '.join(choice.migrations)}", self._style.MIGRATE_LABEL)

    def unfinished(self, call: "UnfinishedCall", *, goes_on: bool, wanted: bool) -> None:
        """Print what happens to what a killed call has left.

        Args:
            call: the killed one.
            goes_on: whether the new call goes on with it, rather than take it back.
            wanted: whether that was asked for.
        """
        if call.is_undone:
            self._stdout.write(f"An earlier call ({call.call_id}) was taken back here, which is compared once more.")
            return
        head = f"An earlier call ({call.call_id}) was killed here."
        if goes_on:
            self._stdout.write(f"{head} Going on after {call.steps[-1] if call.steps else 'its beginning'}.")
            if call.broken:
                self._stdout.write(f"{call.broken} was broken off: what it did is taken back, and it runs again.")
        elif not wanted:
            self._stdout.write(f"{head} Taking back what it left:")
        elif call.is_being_undone:
            self._stdout.write(f"{head} It was being undone, which comes first. Then all of it runs again:")
        else:
            self._stdout.write(
                f"{head} The database was empty before, and {call.broken} was broken off: all of it is dropped, and "
                "runs again."
            )

    def detail(self) -> None:
        """Announce the traceback, which the interpreter prints."""
        if self._failed:
            self._write("Exception detail:", self._style.ERROR)

    def _write(self, text: str, style: object = None, *, ending: str = "\n") -> None:
        if self._verbosity > 0:
            encoding = getattr(self._stdout, "encoding", None) or "utf-8"
            shown = text.encode(encoding, "backslashreplace").decode(encoding)
            # A reader that is gone, or a full disk, must not end the undo that is told of.
            with suppress(*UNWRITABLE):
                self._stdout.write(shown, style, ending)  # type: ignore[arg-type]  # Style's members are untyped callables
                # Whoever reads a pipe wants to know of a wait while it lasts.
                self._stdout.flush()
