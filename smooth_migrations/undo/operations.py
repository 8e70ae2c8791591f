"""What has run of one migration outside a transaction, so that a broken one can be taken back."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration, RunPython
from django.db.migrations.operations.base import Operation
from django.db.migrations.recorder import MigrationRecorder
from django.db.migrations.state import ProjectState

from smooth_migrations.interruption import Interruption
from smooth_migrations.reversibility import database_parts

__all__ = ["OperationLog"]


@dataclass(frozen=True, slots=True)
class _Ran:
    operation: Operation
    backwards: bool
    before: ProjectState
    after: ProjectState


class OperationLog:
    """Which operations of one migration have run, with the states between which each did."""

    def __init__(self, connection: BaseDatabaseWrapper, migration: Migration, interruption: Interruption) -> None:
        self._connection = connection
        self._migration = migration
        self._interruption = interruption
        self._recorded = self._records()
        self._ran: list[_Ran] = []
        self._at_work: Operation | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note each operation of the migration as it begins and ends."""
        watched = list(self._migration.operations)
        try:
            for operation in watched:
                self._watch(operation, "database_forwards", backwards=False)
                self._watch(operation, "database_backwards", backwards=True)
            yield
        finally:
            for operation in watched:
                operation.__dict__.pop("database_forwards", None)
                operation.__dict__.pop("database_backwards", None)

    def take_back(self) -> None:
        """Reverse the completed operations of the broken migration, newest first, and clear away an invalid index."""
        self._drop_invalid_index()
        with self._connection.schema_editor(atomic=self._migration.atomic) as editor:
            for ran in reversed(self._ran):
                reverse = ran.operation.database_forwards if ran.backwards else ran.operation.database_backwards
                reverse(self._migration.app_label, editor, ran.after, ran.before)
        self._ran.clear()
        self._take_back_records()

    def _records(self) -> AbstractSet[tuple[str, str]]:
        keys = {*self._migration.replaces, (self._migration.app_label, self._migration.name)}
        return keys & MigrationRecorder(self._connection).applied_migrations().keys()

    def _take_back_records(self) -> None:
        # Outside a transaction the record is made after the last operation; the call may have ended in between.
        recorder, found = MigrationRecorder(self._connection), self._records()
        for app, name in found - self._recorded:
            recorder.record_unapplied(app, name)
        for app, name in self._recorded - found:
            recorder.record_applied(app, name)

    def _watch(self, operation: Operation, method: str, *, backwards: bool) -> None:
        run = getattr(operation, method)

        def watched(
            app_label: str, editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
        ) -> None:
            if self._at_work is operation:
                # Some operations go backwards by calling their own forwards with the states exchanged.
                run(app_label, editor, from_state, to_state)
                return
            self._at_work = operation
            with self._interruption.window() if isinstance(operation, RunPython) else nullcontext():
                run(app_label, editor, from_state, to_state)
            # Django goes on changing the state it handed over, so the log keeps its own.
            self._ran.append(_Ran(operation, backwards, from_state.clone(), to_state.clone()))
            self._at_work = None

        # Operations run their database half by calling this method on the instance; a name on the instance comes
        # before the class's, and is gone again when the migration has ended.
        operation.__dict__[method] = watched

    def _drop_invalid_index(self) -> None:
        # CREATE INDEX CONCURRENTLY that fails leaves an index marked invalid (PostgreSQL manual, CREATE INDEX).
        if self._connection.vendor != "postgresql" or self._at_work is None:
            return
        indexes = [getattr(part, "index", None) for part in database_parts(self._at_work)]
        names = [index.name for index in indexes if index is not None]
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT c.oid::regclass::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
                "WHERE NOT i.indisvalid AND c.relname = ANY(%s) AND pg_table_is_visible(c.oid)",
                [names],
            )
            for (qualified,) in cursor.fetchall():
                cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {qualified}")
