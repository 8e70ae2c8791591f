"""Rows that code of a call changes where every transaction is permanent at once: recorded, and given back."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.interruption import Interruption
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.journal import CallJournal, Frame

if TYPE_CHECKING:
    from smooth_migrations.undo.rows.recorder import Recorder

__all__ = ["REVERSED", "CodeRows", "ReceiversRows", "changed_since", "is_recordable"]

REVERSED = "its code was taken back by its reverse code; what that does not give back has changed"
"""Told of code that has run, where it is not known which rows it has changed."""

# Where something may be permanent before a call's end, and it can be told which rows code changes.
_RECORDABLE = frozenset({"mysql", "postgresql"})
_RECEIVED = "rows that receivers of pre_migrate wrote stay"


def is_recordable(connection: BaseDatabaseWrapper) -> bool:
    """Return whether it can be told on this kind of server which rows code changes."""
    return connection.vendor in _RECORDABLE


class CodeRows:
    """What the operations of one migration outside a transaction do to rows.

    Args:
        connection: the target's.
        journal: of the call, begun.
        interruption: of the call.
        step: the migration.
        is_elsewhere: whether something was written to the database over another alias.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        journal: CallJournal,
        interruption: Interruption,
        step: Step,
        is_elsewhere: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._journal = journal
        self._interruption = interruption
        self._step = step
        self._is_elsewhere = is_elsewhere

    @contextmanager
    def recording(self, number: int) -> Iterator[None]:
        """Record what an operation does that runs within."""
        from smooth_migrations.undo.rows.recorder import Recorder  # noqa: PLC0415 - most migrations run no code

        recorder = Recorder(
            self._connection,
            self._interruption,
            lambda detail: self._journal.note_rows(self._step, number, detail),
            write_over=lambda other, detail: self._journal.note_rows(self._step, number, detail, other),
        )
        try:
            with recorder.recording():
                recorder.watch()
                yield
                with self._interruption.held_back():
                    if self._is_elsewhere():
                        recorder.give_up("it has written over another alias")
                    recorder.finish()
        finally:
            recorder.close()

    def give_back(self, number: int) -> list[str] | None:
        """Take back what an operation did to rows, and strike it out of the journal, in one transaction.

        Takes row locks alone.

        Args:
            number: of one that was recorded.

        Returns:
            The tables of which somebody has changed rows since, which stay so; None where it is not known, or not
            possible, and nothing was changed.
        """

        def forget() -> None:
            self._journal.forget_operation(self._step, number)

        return _given_back(self._connection, self._journal, self._step, forget, number)


class ReceiversRows:
    """Rows that receivers of pre_migrate write before the first migration, and that are committed before it.

    Args:
        connection: the target's.
        journal: of the call.
        interruption: of the call.
    """

    def __init__(self, connection: BaseDatabaseWrapper, journal: CallJournal, interruption: Interruption) -> None:
        self._connection = connection
        self._journal = journal
        self._interruption = interruption
        self._recorder: Recorder | None = None
        self._until = ExitStack()
        self._held: list[dict[str, object]] = []
        self._is_unknown = False

    @contextmanager
    def listening(self, frame: Callable[[], Frame]) -> Iterator[None]:
        """Record what is run within, up to `stop`; nothing is asked of the server before a row is written.

        Args:
            frame: returns what the call began with.
        """
        self._held = []
        if frame().before.is_empty or not is_recordable(self._connection):
            yield
            return
        from smooth_migrations.undo.rows.recorder import Recorder  # noqa: PLC0415 - not for every server

        with ExitStack() as self._until:
            if self._connection.features.can_rollback_ddl:
                # In the call's own transaction, of which it is not known yet whether it is committed early.
                recorder = Recorder(self._connection, self._interruption, self._held.append)
            else:
                recorder = Recorder(
                    self._connection,
                    self._interruption,
                    lambda detail: self._journal.note_rows(None, 0, detail),
                    lambda other: self._journal.begin(frame(), other),
                    lambda other, detail: self._journal.note_rows(None, 0, detail, other),
                )
            self._recorder = recorder
            self._until.callback(recorder.close)
            self._until.enter_context(recorder.recording())
            yield

    def aside(self) -> AbstractContextManager[None]:
        """Take what is run within for no receiver of the project's."""
        return self._recorder.aside() if self._recorder is not None else nullcontext()

    def stop(self, *, is_early: bool) -> None:
        """Record no further; the first migration begins. Safe to repeat.

        Args:
            is_early: whether the open transaction is committed before the call's end.
        """
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            if is_early and self._connection.in_atomic_block:
                recorder.flush()
            self._is_unknown |= recorder.is_unknown
            self._until.close()

    def write(self) -> None:
        """Write down what was recorded in the transaction that is about to be committed. Safe to repeat."""
        for detail in self._held:
            self._journal.note_rows(None, 0, detail)
        self._held = []

    def give_back(self) -> str | None:
        """Take back what was written, in one transaction; return in words what of it stays. Safe to repeat."""
        self.stop(is_early=False)
        if not self._journal.rows_of(None, 0) and not self._is_unknown:
            return None
        kept = _given_back(self._connection, self._journal, None, self._journal.forget_receivers)
        if kept is None or self._is_unknown:
            self._journal.forget_receivers()
            self._is_unknown = False
            return _RECEIVED
        return changed_since(kept) if kept else None


def changed_since(tables: list[str]) -> str:
    """Return in words that rows which code had changed were changed again by somebody else."""
    return f"rows that its code had changed in {', '.join(tables)} were changed again since, and stay so"


def _given_back(
    connection: BaseDatabaseWrapper,
    journal: CallJournal,
    step: Step | None,
    forget: Callable[[], None],
    number: int = 0,
) -> list[str] | None:
    from smooth_migrations.undo.rows.restoring import (  # noqa: PLC0415 - for an undo
        NotRestorableError,
        is_complete,
        restore_rows,
    )

    details = journal.rows_of(step, number)
    if details is None or not is_complete(details):
        return None
    try:
        with passing("give_back"), transaction.atomic(connection.alias):
            kept = restore_rows(connection, details)
            forget()
    except NotRestorableError:
        return None
    return kept
