"""What a worker knows of its project's migrations: worked out once for all databases with the same records.

Of Django's graph, its checks and the project's state nothing depends on a database but which migrations are recorded
there (`MigrationLoader.build_graph`). Files are read once, as by any process.
"""

from copy import copy
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState

from smooth_migrations.undo.records import Key

__all__ = ["Known", "Library"]


@dataclass(slots=True)
class Known:
    """What is so for every database with the same records.

    Args:
        recorded: the keys of what is recorded.
        executor: Django's, for one of them.
        has_sound_history: whether it was found that nothing is wrong with it.
    """

    recorded: frozenset[Key]
    executor: MigrationExecutor
    has_sound_history: bool = False
    _state: ProjectState | None = None

    def state(self) -> ProjectState:
        """Return the project's state after all that is recorded; it may be moved along."""
        if self._state is None:
            # The one way to this state that Django's own migrate takes.
            self._state = self.executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
        return self._state.clone()


class Library:
    """What is known, by the records."""

    def __init__(self) -> None:
        self._known: dict[frozenset[Key], Known] = {}

    def of(self, connection: BaseDatabaseWrapper) -> tuple[Known, MigrationExecutor]:
        """Return what is known of databases like this one, and an executor for it. Only reads.

        Its migrations are shared, and are as in their files again: what was installed in them is forgotten.
        """
        recorder = MigrationRecorder(connection)
        recorded: frozenset[Key] = frozenset(recorder.applied_migrations())
        known = self._known.get(recorded)
        if known is None:
            known = self._known[recorded] = Known(recorded, MigrationExecutor(connection))
        executor, loader = copy(known.executor), copy(known.executor.loader)
        executor.connection, executor.recorder, executor.loader = connection, recorder, loader
        # Beside what is recorded, what replaces some of it.
        loader.connection, loader.applied_migrations = connection, {**loader.applied_migrations}
        for migration in loader.disk_migrations.values():
            vars(migration)["operations"] = [*type(migration).operations]
        return known, executor
