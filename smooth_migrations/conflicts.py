"""What forbids to go on beside contract halves that are held back."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from smooth_migrations.contract_queue import VERSION, Queued
from smooth_migrations.operations import CannotSplit

__all__ = ["PendingConflict", "refuse_later", "refuse_missing", "refuse_unrecorded", "unrecorded"]


class PendingConflict(CannotSplit):
    """An operation touches what a contract half is still held back for, or nobody knows what that means by now."""


def refuse_later(queue: Iterable[Queued]) -> None:
    """Make sure that it is known what is held back. Pure.

    Raises:
        PendingConflict: a later version of this program has written it.
    """
    for item in queue:
        if item.version != VERSION:
            raise PendingConflict(
                f"{item} was held back by a later version of this program",
                hint="go on with that version, or a newer one",
            )


def refuse_missing(queue: Iterable[Queued], passed: AbstractSet[tuple[str, str, int]]) -> None:
    """Make sure that the way through the migrations has led past all that is held back. Pure.

    Args:
        queue: what is held back.
        passed: the operations that the way has led past, as `Queued.key` has them.

    Raises:
        PendingConflict: a file is gone or replaced by a squash, so that nobody knows what the tables are like.
    """
    for item in queue:
        if item.key not in passed:
            raise PendingConflict(
                f"{item} is held back, and the file of {item.app}.{item.name} is missing or replaced",
                hint="finalise with the release that deployed it",
            )


def unrecorded(connection: BaseDatabaseWrapper, queue: Iterable[Queued]) -> tuple[Queued, ...]:
    """Return what is held back of migrations that are not recorded as applied. Only reads."""
    held = tuple(queue)
    applied = MigrationRecorder(connection).applied_migrations() if held else {}
    return tuple(item for item in held if (item.app, item.name) not in applied)


def refuse_unrecorded(connection: BaseDatabaseWrapper, queue: Sequence[Queued]) -> None:
    """Make sure that what is held back belongs to migrations that are applied. Only reads.

    Raises:
        PendingConflict: somebody has taken one back, or deleted its record, by other means than these.
    """
    for item in unrecorded(connection, queue):
        raise PendingConflict(
            f"{item} is held back, and {item.app}.{item.name} is not recorded as applied",
            hint=(
                "where the migration was taken back, manage.py finalise_migrations --force forgets it; "
                "where its record alone is gone, manage.py migrate --fake writes it again"
            ),
        )
