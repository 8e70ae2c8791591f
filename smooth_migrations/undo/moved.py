"""What the undo must know of a migration that has run, and how it is to be reversed."""

from collections.abc import Callable
from dataclasses import dataclass, field

from django.db.migrations import Migration

from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.journal import Entry
from smooth_migrations.undo.named import Named
from smooth_migrations.undo.tables import Definitions
from smooth_migrations.undo.transaction import Limits

__all__ = ["Manner", "Moved"]


@dataclass(frozen=True, slots=True)
class Moved:
    """One migration that the call moved.

    Args:
        migration: the very instance, since receivers of pre_migrate may have changed it.
        step: the same by name, and in which direction.
        tables: the definitions of the tables before it, where they were taken.
        named: which of them it may have changed.
        entries: its operations, where it ran outside a transaction and each can be taken back by itself.
    """

    migration: Migration
    step: Step
    tables: Definitions | None = None
    named: Named = field(default_factory=Named)
    entries: tuple[Entry, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manner:
    """How committed steps are reversed.

    Args:
        limits: time-outs of each statement in a transaction.
        application_name: of our session.
        lock_retries: how often a step is tried again after a lock time-out.
        pause: waits before another attempt, given its number and why.
    """

    limits: Limits
    application_name: str | None
    lock_retries: int
    pause: Callable[[int, BaseException], None]
