"""Calls that run a part of what is pending: what comes before the first migration of the other kind."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, ClassVar

from django.db.migrations import Migration

from smooth_migrations.call import Call
from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.reversibility import can_hold

if TYPE_CHECKING:
    from smooth_migrations.groundwork import Ground
    from smooth_migrations.shadow_columns import ShadowGround

__all__ = ["AheadCall", "GroundedCall", "RehearsedCall", "SegmentEnds"]


class SegmentEnds(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """The next migration is not this call's: nothing of it is run."""


class GroundedCall(Call):
    """A call that makes ready, outside its transaction, what the statements in it find so."""

    def lay(self, grounds: Collection["Ground | ShadowGround"]) -> None:
        """Make it; what is there is taken back with the call. Safe to repeat.

        Raises:
            DatabaseError: rows are in the way, or a lock.
            LeaseLost: it is another's turn.
        """
        if not grounds:
            return
        self.permanent.expect_groundwork([*dict.fromkeys(ground.place for ground in grounds)])
        self._seal()
        for ground in grounds:
            self.permanent.journal.check_turn()
            ground.lay(self._connection, self.options.limits, self.interruption.lock_limited)
        self._begin()


class _PartialCall(Call):
    _is_held: ClassVar[bool]

    def progress(self, action: str, migration: Migration | None, *, fake: bool) -> None:
        """Take note of what Django's executor does, and end before what is not this call's.

        Raises:
            SegmentEnds: such a migration would begin.
        """
        begins = migration if action == "apply_start" else None
        if begins is not None and can_hold(begins, self._connection) is not self._is_held:
            raise SegmentEnds(f"{begins.app_label}.{begins.name} is not a part of this call")
        super().progress(action, migration, fake=fake)


class RehearsedCall(_PartialCall):
    """A call that goes as far as one transaction holds it, and commits nothing before it is told to."""

    _is_held = True

    def _may_step(self, error: BaseException) -> bool:
        """Tell where another call would go on migration by migration; this one ends there."""
        if super()._may_step(error):
            self._observer.stepping(error)
        return False


class AheadCall(_PartialCall, GroundedCall):
    """A call that goes as far as no transaction holds it; what it has done stays committed, and in its journal."""

    _is_held = False

    def run(self, move: Callable[[], float | None]) -> None:
        """Run `move`, and leave no transaction open behind it.

        Raises:
            BaseException: what `move` raised; all of it is taken back.
        """
        super().run(move)
        self.abandon()
