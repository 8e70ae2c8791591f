"""What earlier runs have left in a database, for those who settle them."""

from contextlib import suppress

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations import protocol
from smooth_migrations.lease import (
    Lease,
    LeaseHeld,
    Owner,
    SessionLeft,
    end_session_left,
    epoch_of,
    holder_at_work,
)
from smooth_migrations.marker import others_marks, read_markers
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.names import session_prefixes
from smooth_migrations.undo.journal import unfinished_call
from smooth_migrations.undo.prepared import prepared_gids
from smooth_migrations.worker.left import steps_of
from smooth_migrations.worker.physical import missing_file, physical_of

__all__ = ["standing"]

# Everybody's are shown to everybody, and it is an error to end one that is not one's own: nobody must be passed over
# that may yet prepare.
_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
      AND (starts_with(application_name, %s) OR starts_with(application_name, %s))
"""


def standing(command: protocol.Look, connection: BaseDatabaseWrapper) -> protocol.Standing:
    """Look at a database, after ending what lost workers of these runs have left at work on its server.

    Args:
        command: names the runs.
        connection: the target's, in autocommit. No file is made that is not there.
    """
    if missing_file(connection) is not None:
        return protocol.Standing(id=command.id, epoch=0, is_missing=True)
    if not _is_anothers(connection, command):
        for run in command.runs:
            _end_sessions(connection, run)
    if command.fences:
        _fence(connection)
    left: SessionLeft | None = None
    try:
        end_session_left(connection)
    except SessionLeft as error:
        left = error
    while True:
        # Prepared, then the records, then prepared again: what is settled meanwhile must not seem never to have been.
        gids = prepared_gids(connection)
        epoch = epoch_of(connection)
        holder = None if _is_the_lost_one(connection, command) else holder_at_work(connection)
        unfinished = unfinished_call(connection)
        runs = {*command.runs, *([unfinished.call_id] if unfinished else [])}
        markers = read_markers(connection, command.deploy, runs)
        if gids == prepared_gids(connection):
            break
    return protocol.Standing(
        id=command.id,
        epoch=epoch,
        markers=markers,
        elsewhere=others_marks(connection, command.deploy, runs),
        gids=gids,
        unfinished=unfinished.call_id if unfinished else None,
        steps=steps_of(unfinished) if unfinished else (),
        holder=str(holder or left or "") or None,
        held_by=holder.owner.name if holder else None,
        physical=physical_of(connection),
    )


def _is_anothers(connection: BaseDatabaseWrapper, command: protocol.Look) -> bool:
    """Return whether somebody is at work who is neither this worker nor its coordinator: perhaps the very run.

    Nor a worker that this coordinator has lost, wherever it is: nobody has had a turn since.
    """
    if _is_the_lost_one(connection, command):
        return False
    holder = holder_at_work(connection)
    return holder is not None and not (holder.owner.is_here or holder.owner.is_parent)


def _is_the_lost_one(connection: BaseDatabaseWrapper, command: protocol.Look) -> bool:
    return command.lost is not None and epoch_of(connection) == command.lost


def _fence(connection: BaseDatabaseWrapper) -> None:
    """Raise the lease's epoch; whoever holds it, or has prepared under it, is seen all the same."""
    with suppress(LeaseHeld):
        Lease.acquire(connection, Owner.here(None)).release()


def _end_sessions(connection: BaseDatabaseWrapper, run: str) -> None:
    """End a dead worker's sessions, which the server does not know to be orphans: one may be about to prepare."""
    if connection.vendor != "postgresql":
        return
    while True:
        # In a transaction of its own each time, which sees the sessions of one moment. As the role that has logged in
        # (OPTIONS["assume_role"] is another): that is the one whose sessions they are.
        with passing("end_sessions"), transaction.atomic(connection.alias), connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE NONE")
            cursor.execute(_SESSIONS, session_prefixes(run))
            if not cursor.fetchall():
                return
            cursor.execute("SELECT pg_sleep(0.02)")
