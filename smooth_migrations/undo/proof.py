"""The proof of an undo: the schema is what it was, or every difference is told."""

from collections.abc import Callable, Sequence
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from smooth_migrations.errors import SchemaDiffers
from smooth_migrations.fingerprint import Fingerprint, is_invalid_index_gone, take
from smooth_migrations.undo.journal import Frame
from smooth_migrations.undo.moved import Manner

__all__ = ["prove"]

# What a difference of fingerprints says of a migration that was not recorded before.
_APPLIED: Final = "+ migration "
_HINT: Final = (
    "it is told until it is mended, or accepted with `apply_migrations --no-fingerprint`, and where a deploy was at "
    "work with `smooth-orchestrate recover PLAN --no-fingerprint`"
)


def prove(
    connection: BaseDatabaseWrapper, frame: Frame, manner: Manner, on_left: Callable[[str], None] | None = None
) -> None:
    """Compare the schema with what a call began with, when all that it did was taken back. Only reads.

    Args:
        connection: the target's.
        frame: what the call began with; without a fingerprint nothing is compared.
        manner: how often a lock in the way is waited for.
        on_left: told that nothing can be compared where another process has applied migrations meanwhile, as it may
            while nobody holds the lease; without it that is a difference, too.

    Raises:
        SchemaDiffers: the schema is not what it was, with every difference.
    """
    before = Fingerprint.unpacked(frame.fingerprint) if frame.fingerprint else None
    found = manner.persist(lambda: _differences(connection, before, frame)) if before is not None else ()
    applied = [line.removeprefix(_APPLIED) for line in found if line.startswith(_APPLIED)]
    cause = f"another process has applied {', '.join(applied)} meanwhile; " if applied else ""
    if applied and on_left is not None:
        on_left(f"{cause}the schema cannot be compared with what it was")
    elif found:
        error = SchemaDiffers("\n".join([f"{cause}the schema is not as it was before:", *found]), hint=_HINT)
        # Where a call fails, Django's way of telling it is a traceback, which knows nothing of hints.
        error.add_note(f"hint: {_HINT}")
        raise error


def _differences(connection: BaseDatabaseWrapper, before: Fingerprint, frame: Frame) -> Sequence[str]:
    # Django makes its table of records before anybody is asked.
    records = MigrationRecorder.Migration._meta.db_table  # noqa: SLF001 - documented, whatever its name
    return [
        line
        for line in before.differences(take(connection))
        if (frame.before.has_records or records not in line) and not is_invalid_index_gone(line)
    ]
