"""The rows of `django_migrations`, as they were before a call."""

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.transaction import atomic

from smooth_migrations.forks import leave_if_forked
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Step

__all__ = [
    "Key",
    "Record",
    "Recording",
    "Writes",
    "keys_of",
    "keys_of_squashes",
    "restore_records",
    "shown_by_records",
    "take_records",
]

Key = tuple[str, str]
_TABLE = "django_migrations"
_WRITES = ("INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True, slots=True)
class Record:
    """One row.

    Args:
        id: its primary key.
        app: the app's label.
        name: the migration's.
        applied: when, in ISO 8601, so that it can be written down.
    """

    id: int
    app: str
    name: str
    applied: str

    @property
    def key(self) -> Key:
        """Of which migration it is."""
        return self.app, self.name


class Writes:
    """Sees whether this call writes records, since those that it has not written are another process's.

    One of Django's execute wrappers.

    Args:
        before: called before each write.

    Attributes:
        seen: whether it has.
    """

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before
        self.seen = False

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: str,
        params: object,
        many: bool,  # noqa: FBT001 - Django's wrapper protocol
        context: dict[str, Any],
    ) -> Any:  # noqa: ANN401 - as Django's
        """Take note of a statement, and run it."""
        text = str(sql)
        if _TABLE in text and text.lstrip().upper().startswith(_WRITES):
            self.seen = True
            self._before()
        return execute(sql, params, many, context)


class Recording:
    """The transaction in which a migration that ran outside one is recorded.

    Args:
        connection: the target's, in autocommit.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._stack = ExitStack()
        self._pid = os.getpid()
        self.is_open = False

    def begin(self, at_turn: Callable[[], AbstractContextManager[None]]) -> None:
        """Begin it.

        Args:
            at_turn: makes what lets it commit while the lease is ours alone.
        """
        leave_if_forked(self._pid)
        with ExitStack() as stack:
            stack.enter_context(passing("record"))
            stack.enter_context(atomic(self._connection.alias, savepoint=False))
            stack.enter_context(at_turn())
            self._stack = stack.pop_all()
        self.is_open = True

    def commit(self) -> None:
        """End it, if it is open."""
        self.is_open = False
        self._stack.close()

    def roll_back(self) -> None:
        """Take it back, if it is open."""
        if self.is_open:
            self._connection.set_rollback(True)
            self.commit()


def shown_by_records(connection: BaseDatabaseWrapper, steps: Iterable[Step]) -> list[Step]:
    """Return the steps of which a database has the effect, as its records say, whoever it was that made it. Only reads.

    Of a migration that was run they have a row; of one that went back they have none any more.
    """
    recorded = MigrationRecorder(connection).applied_migrations()
    return [step for step in steps if ((step.app, step.name) in recorded) is not step.backwards]


def take_records(connection: BaseDatabaseWrapper) -> tuple[Record, ...]:
    """Return every row of the table, which must be there. Only reads."""
    return tuple(_found(MigrationRecorder(connection)))


def restore_records(connection: BaseDatabaseWrapper, before: Iterable[Record], keys: Collection[Key]) -> None:
    """Make the rows of some migrations what they were, ids and times too; all others may be somebody else's.

    In one transaction; takes row locks alone. Repeating it changes nothing.

    Args:
        connection: the target's, in autocommit.
        before: what `take_records` returned.
        keys: of the migrations.
    """
    recorder = MigrationRecorder(connection)
    if not recorder.has_table():
        return
    wanted = {record for record in before if record.key in keys}
    with atomic(connection.alias):
        found = {record for record in _found(recorder) if record.key in keys}
        recorder.migration_qs.filter(pk__in=[record.id for record in found - wanted]).delete()
        for record in wanted - found:
            row: Any = recorder.Migration(
                pk=record.id, app=record.app, name=record.name, applied=datetime.fromisoformat(record.applied)
            )
            row.save(using=connection.alias, force_insert=True)


def keys_of(migration: Migration) -> set[Key]:
    """Return the keys under which one migration is recorded: its own, and those that it replaces."""
    return {*migration.replaces, (migration.app_label, migration.name)}


def keys_of_squashes(connection: BaseDatabaseWrapper) -> set[Key]:
    """Return the keys of all that replace others: Django records them when a call ends, as no step of it."""
    return {*MigrationLoader(connection).replacements}


def _found(recorder: MigrationRecorder) -> Iterator[Record]:
    for number, app, name, applied in recorder.migration_qs.values_list("id", "app", "name", "applied"):
        yield Record(number, app, name, applied.isoformat())
