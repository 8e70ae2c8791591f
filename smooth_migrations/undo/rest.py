"""What an undo gives back beside the steps of its call."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Received
from smooth_migrations.received import take_received_back
from smooth_migrations.undo.emptiness import drop_empty_records, drop_tables
from smooth_migrations.undo.frame import Frame
from smooth_migrations.undo.moved import Moved
from smooth_migrations.undo.records import keys_of, keys_of_squashes, restore_records
from smooth_migrations.undo.transaction import Limits

if TYPE_CHECKING:
    from smooth_migrations.undo.indexes import Limited

__all__ = ["restore_rest"]


def restore_rest(
    connection: BaseDatabaseWrapper, frame: Frame, moved: Sequence[Moved], limits: Limits, limited: "Limited"
) -> None:
    """Take back groundwork, tables of apps without migrations, records, and what receivers of post_migrate made.

    Takes ACCESS EXCLUSIVE on each table that it drops, and locks as `drop_groundwork` does. Safe to repeat.

    Args:
        connection: the target's, in autocommit.
        frame: what the call began with.
        moved: what it had moved, all of which was taken back.
        limits: time-outs of each statement on groundwork.
        limited: ends one that waits for too long where no time-out can.
    """
    with passing("restore"):
        if frame.groundwork:
            from smooth_migrations.undo.ground import drop_groundwork  # noqa: PLC0415 - few calls lay any

            drop_groundwork(connection, frame.groundwork, limits, limited)
        drop_tables(connection, frame.synced)
        if frame.records is not None:
            keys = keys_of_squashes(connection).union(*(keys_of(item.migration) for item in moved))
            restore_records(connection, frame.records, keys)
        if not frame.before.has_records:
            drop_empty_records(connection)
        take_received_back(connection, frame.received or Received())
