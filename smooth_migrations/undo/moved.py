"""What the undo must know of a migration that has run, and how it is to be reversed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor

from smooth_migrations.errors import is_lock_failure
from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.code import REVERSED
from smooth_migrations.undo.journal import CallJournal, Entry, EntryState, UnfinishedCall
from smooth_migrations.undo.kinds import has_code
from smooth_migrations.undo.named import Named, named_by
from smooth_migrations.undo.removed import Removed
from smooth_migrations.undo.states import state_before, states_of
from smooth_migrations.undo.tables import Definitions
from smooth_migrations.undo.transaction import Limits

if TYPE_CHECKING:
    from smooth_migrations.undo.operations import OperationLog

__all__ = ["OUTSIDE", "Manner", "Moved", "recalled", "tables_detail"]

_T = TypeVar("_T")

# What cannot be taken back needs somebody to look at it, which a lock that is gone a moment later is not worth.
_LEAST_RETRIES: Final = 5

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
        removed: the values of fields that it has removed in a transaction.
        is_noted: whether the journal says that it is done.
    """

    migration: Migration
    step: Step
    tables: Definitions | None = None
    named: Named = field(default_factory=Named)
    entries: tuple[Entry, ...] | None = None
    removed: list[Removed] = field(default_factory=list)
    is_noted: bool = False

    def noted(self, journal: CallJournal) -> "Moved":
        """Write down that it is done, once, within the open transaction; return it as it is then."""
        if not self.is_noted:
            journal.note_step(self.step, EntryState.DONE, self.detail)
        return replace(self, is_noted=True)

    def left_by(self, log: "OperationLog | None") -> Sequence[str]:
        """Return in words what of it may have stayed when it was taken back.

        Args:
            log: which took its operations back, where each was by itself.
        """
        if self.step.fake:
            return ()
        if self.entries is not None:
            return log.left if log else ()
        return (REVERSED,) if has_code(self.migration) else ()

    @property
    def detail(self) -> dict[str, Any]:
        """What the journal keeps of it for the undo."""
        outside = {} if self.entries is None else OUTSIDE
        return outside | tables_detail(self.tables) | ({"removed": self.removed} if self.removed else {})


@dataclass(frozen=True, slots=True)
class Manner:
    """How committed steps are reversed.

    Args:
        limits: time-outs of each statement in a transaction.
        application_name: of our session.
        lock_retries: how often a step is tried again after a lock time-out, and a few times in any case.
        pause: waits before another attempt, given its number and why.
    """

    limits: Limits
    application_name: str | None
    lock_retries: int
    pause: Callable[[int, BaseException], None]

    def may_try_again(self, attempt: int, error: BaseException) -> bool:
        """Return whether a lock was in the way of what is to be tried again, for this many times."""
        return is_lock_failure(error) and attempt <= max(self.lock_retries, _LEAST_RETRIES)

    def persist(self, run: Callable[[], _T], unless: Callable[[], bool] = lambda: False) -> _T:
        """Run something until no lock is in its way, or too often; return what it returns.

        Args:
            run: is safe to repeat.
            unless: whether it is not, this time.
        """
        attempt = 0
        while True:
            try:
                return run()
            except Exception as error:
                attempt += 1
                if unless() or not self.may_try_again(attempt, error):
                    raise
                self.pause(attempt, error)


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
    removed = detail.get("removed", [])
    if "tables" not in detail:
        return Moved(migration, step, entries=entries, removed=removed)
    states = states_of(migration, state_before(executor, migration))
    named = named_by(migration.operations, migration.app_label, states)
    return Moved(migration, step, detail["tables"], named, entries, removed)


def tables_detail(tables: Definitions | None) -> dict[str, Any]:
    """Return what the journal keeps of the definitions that an undo goes back to."""
    return {} if tables is None else {"tables": tables}
