"""What earlier runs have left in a database, for those who settle them."""

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations import protocol
from smooth_migrations.lease import holder_at_work
from smooth_migrations.marker import read_markers
from smooth_migrations.undo.journal import unfinished_call

__all__ = ["standing"]


def standing(command: protocol.Look, connection: BaseDatabaseWrapper) -> protocol.Standing:
    """Look at a database. Only reads.

    Args:
        command: names the runs.
        connection: the target's, in autocommit.
    """
    holder = holder_at_work(connection)
    unfinished = unfinished_call(connection)
    runs = {*command.runs, *([unfinished.call_id] if unfinished else [])}
    return protocol.Standing(
        id=command.id,
        markers=read_markers(connection, runs),
        unfinished=unfinished.call_id if unfinished else None,
        holder=str(holder) if holder else None,
    )
