"""Calls that run a part of what is pending: what comes before the first migration of the other kind."""

from collections.abc import Callable

from django.db.migrations import Migration

from smooth_migrations.call import Call
from smooth_migrations.errors import SmoothMigrationsError
from smooth_migrations.reversibility import can_hold

__all__ = ["AheadCall", "RehearsedCall", "SegmentEnds"]


class SegmentEnds(SmoothMigrationsError):  # noqa: N818 - named by what happened
    """The next migration is not this call's: nothing of it is run."""


class RehearsedCall(Call):
    """A call that goes as far as one transaction holds it."""

    def progress(self, action: str, migration: Migration | None, *, fake: bool) -> None:
        """Take note of what Django's executor does, and end before what no transaction holds.

        Raises:
            SegmentEnds: such a migration would begin.
        """
        if migration is not None and action == "apply_start" and not can_hold(migration, self._connection):
            raise SegmentEnds(f"{migration.app_label}.{migration.name} cannot run in a transaction")
        super().progress(action, migration, fake=fake)


class AheadCall(Call):
    """A call that goes as far as no transaction holds it; what it has done stays committed, and in its journal."""

    def progress(self, action: str, migration: Migration | None, *, fake: bool) -> None:
        """Take note of what Django's executor does, and end before what a transaction holds.

        Raises:
            SegmentEnds: such a migration would begin.
        """
        if migration is not None and action == "apply_start" and can_hold(migration, self._connection):
            raise SegmentEnds(f"{migration.app_label}.{migration.name} is not to be run ahead")
        super().progress(action, migration, fake=fake)

    def run(self, move: Callable[[], None]) -> None:
        """Run `move`, and leave no transaction open behind it.

        Raises:
            BaseException: what `move` raised; all of it is taken back.
        """
        super().run(move)
        self.abandon()
