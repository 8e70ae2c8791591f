"""What has become of a commit whose session was lost before it had answered: what says so was written in it.

The number of a transaction would not do (PostgreSQL manual, pg_xact_status): a server that has crashed may give it to
another one.
"""

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.values import Step
from smooth_migrations.undo.journal import CallJournal, unfinished_call
from smooth_migrations.undo.moved import Moved
from smooth_migrations.undo.records import shown_by_records

__all__ = ["has_ended", "parted_by_records", "was_sealed"]


def was_sealed(connection: BaseDatabaseWrapper, journal: CallJournal, steps: Sequence[Step]) -> bool:
    """Return whether these migrations of a call that goes on are permanent; the lost session is ended. Idempotent.

    Args:
        connection: the target's, in autocommit; see `CallJournal.end_left`.
        journal: of the call.
        steps: what the commit was about.

    Raises:
        DatabaseError: the server cannot be asked, or does not end the session that was lost.
    """
    journal.end_left()
    found = unfinished_call(connection)
    return found is not None and found.call_id == journal.call_id and {*steps} <= {*found.steps}


def has_ended(connection: BaseDatabaseWrapper, journal: CallJournal, steps: Sequence[Step]) -> bool:
    """Return whether the commit that a call ends with has ended it; as `was_sealed` otherwise."""
    if journal.is_begun:
        return not was_sealed(connection, journal, ())
    journal.end_left()
    return bool(steps) and shown_by_records(connection, steps) == [*steps]


def parted_by_records(connection: BaseDatabaseWrapper, held: Sequence[Moved]) -> tuple[list[Moved], list[Moved]]:
    """Return which of the migrations that were held are permanent by their records, and which are not. Only reads."""
    shown = shown_by_records(connection, [item.step for item in held])
    return [item for item in held if item.step in shown], [item for item in held if item.step not in shown]
