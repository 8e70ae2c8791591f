"""How far the filling of a column has come, kept in the database itself."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.serializer import serializer_factory
from django.db.models import Model

from smooth_migrations.backfill.arguments import BadBackfill
from smooth_migrations.backfill.operation import Backfill
from smooth_migrations.own_tables import find_table, name_of_table
from smooth_migrations.protocol.failpoints import passing

__all__ = ["Place", "Position", "packed", "unpacked"]

_TABLE = "smooth_migrations_backfill"
_IGNORING = {"mysql": ("INSERT IGNORE", "")}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one batch ended.

    Args:
        batches: how many there were.
        key: the last one's last primary key, as text; empty before the first.
    """

    batches: int
    key: str


class Position:
    """The row of one operation on one table.

    Args:
        connection: the database's.
        operation: what is done. With other arguments it begins anew.
        model: of which.
    """

    def __init__(self, connection: BaseDatabaseWrapper, operation: Backfill, model: type[Model]) -> None:
        self._connection = connection
        self._label = model._meta.label_lower  # noqa: SLF001 - public
        self._target = _digest(self._label, *sorted(operation.values))
        self._arguments = _digest(*(_written(value) for value in (operation.values, operation.where)))
        self._table = _TABLE

    def read(self) -> Place | None:
        """Return how far it has come; None before `begin`. Only reads."""
        table = find_table(self._connection, _TABLE)
        if table is None:
            return None
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"SELECT batches, position FROM {table} WHERE target = %s AND arguments = %s",  # noqa: S608 - constant
                [self._target, self._arguments],
            )
            row = cursor.fetchone()
        return Place(int(row[0]), str(row[1])) if row else None

    def begin(self) -> Place:
        """Return how far it has come; the row, and the table, are made where they are not there.

        In autocommit: MariaDB ends a transaction where a table is made. Safe to repeat.
        """
        found = self.read() or self._make()
        # Once for all batches: where the server is far away, each statement of one counts.
        self._table = name_of_table(self._connection, _TABLE)
        return found

    def _make(self) -> Place:
        table = name_of_table(self._connection, _TABLE)
        insert, conflict = _IGNORING.get(self._connection.vendor, ("INSERT", " ON CONFLICT DO NOTHING"))
        with passing("fill"), self._connection.cursor() as cursor:
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {table} (target varchar(64) NOT NULL PRIMARY KEY, "
                "model varchar(255) NOT NULL, arguments varchar(64) NOT NULL, batches bigint NOT NULL, "
                "position text NOT NULL)"
            )
            cursor.execute(
                f"DELETE FROM {table} WHERE target = %s AND arguments <> %s",  # noqa: S608 - a constant name, as below
                [self._target, self._arguments],
            )
            cursor.execute(
                f"{insert} INTO {table} (target, model, arguments, batches, position) "
                f"VALUES (%s, %s, %s, 0, ''){conflict}",
                [self._target, self._label, self._arguments],
            )
        return self.read() or Place(0, "")

    def advance(self, place: Place, key: str) -> bool:
        """Write down that a batch ends here, in the transaction that fills it; after `begin`.

        Args:
            place: where the one before ended.
            key: the batch's last primary key, as text.

        Returns:
            Whether it was the next one: another process may be at the same work.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE {self._table} SET batches = batches + 1, position = %s "  # noqa: S608 - a constant name
                "WHERE target = %s AND arguments = %s AND batches = %s",
                [key, self._target, self._arguments, place.batches],
            )
            return bool(cursor.rowcount == 1)

    def forget(self) -> None:
        """Strike it out: everything is filled. Safe to repeat."""
        if self.read() is not None:
            table = name_of_table(self._connection, _TABLE)
            with passing("fill"), self._connection.cursor() as cursor:
                cursor.execute(f"DELETE FROM {table} WHERE target = %s", [self._target])  # noqa: S608 - a constant name


def packed(model: type[Model], key: object) -> str:
    """Return a primary key as text.

    Raises:
        BadBackfill: its fields do not read what they write.
    """
    instance, written = model(), []
    fields = model._meta.pk_fields  # noqa: SLF001 - public
    for field, value in zip(fields, key if isinstance(key, tuple) else (key,), strict=True):
        setattr(instance, field.attname, value)
        written.append(field.value_to_string(instance))
    text = json.dumps(written)
    if unpacked(model, text) != key:
        raise BadBackfill(
            f"{model._meta.label}: its key {key!r} is another one when it is read back from {text}: "  # noqa: SLF001 - public
            "let value_to_string and to_python of its field agree"
        )
    return text


def unpacked(model: type[Model], text: str) -> Any:  # noqa: ANN401 - a key is of any type
    """Return the primary key that a text stands for; None where there is none."""
    if not text:
        return None
    values = zip(model._meta.pk_fields, json.loads(text), strict=True)  # noqa: SLF001 - public
    key = tuple(field.to_python(value) for field, value in values)
    return key if len(key) > 1 else key[0]


def _written(value: object) -> str:
    try:
        return str(serializer_factory(value).serialize()[0])
    except ValueError:
        # Such as a query: what it says of itself may differ in each process, which then begins anew.
        return repr(value)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
