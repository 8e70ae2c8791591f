"""Who is told what a call does: a console, a coordinator, a test."""

from collections.abc import Sequence
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration

from smooth_migrations.protocol.values import Step

__all__ = ["Observer"]


class Observer(Protocol):
    """Who is told what a call does, as it happens."""

    def began(self, connection: BaseDatabaseWrapper) -> None:
        """Note that a transaction has begun on this connection."""

    def started(self, step: Step, migration: Migration) -> None:
        """Note that a migration begins."""

    def moved(self, step: Step, duration_ms: float, *, committed: Sequence[Step]) -> None:
        """Note that a migration has run and is recorded, and what is permanent of the call by now, in order."""

    def failed(self, step: Step | None, duration_ms: float, error: BaseException) -> None:
        """Note that the call failed: in this migration, or outside any. Its undo follows."""

    def undone(self, step: Step, duration_ms: float, *, by_rollback: bool) -> None:
        """Note that a step was taken back: by ROLLBACK, or by its reverse operations."""

    def undo_failed(self, step: Step, error: BaseException) -> None:
        """Note that a committed step could not be taken back."""

    def left(self, step: Step | None, what: str) -> None:
        """Note what the undo of a committed step, or of what was before the first, cannot give back, in words."""

    def stepping(self, error: BaseException) -> None:
        """Note that one transaction cannot hold the migrations: each gets one of its own, reversed on failure."""

    def retrying(self, attempt: int, delay_s: float, error: BaseException) -> None:
        """Note that the transaction is tried again after a lock time-out."""
