"""The rows of `django_migrations` that one migration writes, as they were before it."""

from collections.abc import Set as AbstractSet

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.recorder import MigrationRecorder

__all__ = ["Records"]


class Records:
    """Remembers which of a migration's rows are there.

    Outside a transaction the record is made after the last operation, and the call may end in between.

    Args:
        connection: the target's.
        migration: whose own row and whose replaced ones' it is about.
    """

    def __init__(self, connection: BaseDatabaseWrapper, migration: Migration) -> None:
        self._connection = connection
        self._keys = {*migration.replaces, (migration.app_label, migration.name)}
        self._before = self._found()

    def recall(self, *, applied: bool) -> None:
        """Take over from a killed call: before it the migration was applied, or was not."""
        self._before = self._keys if applied else set()

    def restore(self) -> None:
        """Make the rows what they were; repeating it changes nothing."""
        recorder, found = MigrationRecorder(self._connection), self._found()
        for app, name in found - self._before:
            recorder.record_unapplied(app, name)
        for app, name in self._before - found:
            recorder.record_applied(app, name)

    def _found(self) -> AbstractSet[tuple[str, str]]:
        return self._keys & MigrationRecorder(self._connection).applied_migrations().keys()
