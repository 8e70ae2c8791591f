"""The proof of an undo: the schema is what it was, or every difference is told."""

from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from smooth_migrations.errors import UndoFailed
from smooth_migrations.fingerprint import Fingerprint, is_invalid_index_gone, take

__all__ = ["compare"]

# What a difference of fingerprints says of a migration that was not recorded before.
_APPLIED: Final = "+ migration "


def compare(connection: BaseDatabaseWrapper, before: Fingerprint, *, had_records: bool) -> None:
    """Make sure that the schema is what it was. Only reads.

    Args:
        connection: the target's.
        before: as it was before the call.
        had_records: whether Django's table of records was there when the call began; it makes one before it is asked.

    Raises:
        UndoFailed: it is not, with every difference.
    """
    records = MigrationRecorder.Migration._meta.db_table  # noqa: SLF001 - documented, whatever its name
    differences = [
        line
        for line in before.differences(take(connection))
        if (had_records or records not in line) and not is_invalid_index_gone(line)
    ]
    if not differences:
        return
    applied = [line.removeprefix(_APPLIED) for line in differences if line.startswith(_APPLIED)]
    cause = f"another process has applied {', '.join(applied)} meanwhile; " if applied else ""
    raise UndoFailed("\n".join([f"{cause}the schema is not as it was before:", *differences]))
