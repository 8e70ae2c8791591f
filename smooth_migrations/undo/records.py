"""The rows of `django_migrations`, as they were before a call."""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

__all__ = ["Key", "Record", "Writes", "keys_of", "keys_of_squashes", "restore_records", "take_records"]

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
        recording: what a write is run within.

    Attributes:
        seen: whether it has.
    """

    def __init__(self, recording: Callable[[], AbstractContextManager[None]]) -> None:
        self._recording = recording
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
        if not (_TABLE in text and text.lstrip().upper().startswith(_WRITES)):
            return execute(sql, params, many, context)
        self.seen = True
        with self._recording():
            return execute(sql, params, many, context)


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
    with transaction.atomic(connection.alias):
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
