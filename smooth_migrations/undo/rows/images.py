"""Which rows the open transaction has changed: what it sees in a table otherwise than another session does."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.undo.rows.tables import MAX_ROWS, UNREADABLE, Table, UnknownError, Vendor, Written

__all__ = ["Change", "Images", "Row", "chunks"]

Row: TypeAlias = tuple[str | None, ...]
"""The values of a row as text, in the order of its table's columns."""

Change: TypeAlias = tuple[Row | None, Row | None]
"""A row before and after; None where there is none."""

_CHUNK = 500_000
_MAX_CHANGE = 4_000_000


@dataclass(slots=True)
class Images:
    """Compares what two sessions see.

    Args:
        vendor: of the server.
        connection: whose open transaction is looked at.
        other: the second session, which sees what is committed.
        left: how many rows may still be read.
        outside: the tables to which other databases refer, once they were asked for.
    """

    vendor: Vendor
    connection: BaseDatabaseWrapper
    other: BaseDatabaseWrapper
    left: int
    outside: Collection[str] | None = None

    def changes(self, written: Written) -> list[tuple[Table, list[Change]]]:
        """Return the rows that the open transaction has changed. Only reads; takes no lock.

        Raises:
            UnknownError: it cannot be told.
        """
        with self.vendor.reading(self.connection):
            found = []
            tables = self.vendor.tables(self.connection, written)
            if self.vendor.defines(self.connection, self.other):
                raise UnknownError("a function of its statements has changed more than rows")
            if written.is_effective and not tables:
                raise UnknownError("what its statements changed is not seen")
            for table in tables:
                if self.outside is None:
                    self.outside = self.vendor.outside(self.other)
                if table.name in self.outside:
                    raise UnknownError(f"a foreign key of another database refers to {table.name}")
                changes = self._keyed(table) if table.key else self._keyless(table)
                if changes:
                    found.append((table, changes))
            return found

    def _keyed(self, table: Table) -> list[Change]:
        # In this order, a row that somebody else commits in between looks like one that was changed the other way
        # round, and never as it is now: it is no longer the same when it is read once more.
        now = _by_key(table, self._read(self.connection, table))
        was = _by_key(table, self._read(self.other, table))
        if now == was:
            return []
        again = _by_key(table, self._read(self.connection, table))
        return [
            (was.get(key), now.get(key))
            for key in sorted(now.keys() | was.keys(), key=repr)
            if now.get(key) != was.get(key) and now.get(key) == again.get(key)
        ]

    def _keyless(self, table: Table) -> list[Change]:
        after = Counter(self._read(self.connection, table))
        before = Counter(self._read(self.other, table))
        if after == before:
            return []
        if after != Counter(self._read(self.connection, table)):
            raise UnknownError(f"rows of {table.name}, which has no primary key, are changed by others")
        gone, new = before - after, after - before
        return [*((row, None) for row in gone.elements()), *((None, row) for row in new.elements())]

    def _read(self, connection: BaseDatabaseWrapper, table: Table) -> list[Row]:
        columns = ", ".join(column.read for column in table.columns)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {columns} FROM {table.name} LIMIT {MAX_ROWS + 1}")  # noqa: S608 - quoted names
            rows = [tuple(_text(value) for value in row) for row in cursor.fetchall()]
        self.left -= len(rows)
        if len(rows) > MAX_ROWS or self.left < 0:
            raise UnknownError(f"{table.name} has too many rows")
        if any(UNREADABLE in row for row in rows):
            raise UnknownError(f"{table.name} has values that are too long")
        return rows


def chunks(found: Sequence[tuple[Table, list[Change]]], room: int) -> Iterator[dict[str, Any]]:
    """Yield what is to be written down of changed rows, in pieces that a server takes.

    Args:
        found: what has changed.
        room: how long a statement may be, in bytes.

    Raises:
        UnknownError: one row alone is too long.
    """
    # What else is in a statement, and what is escaped in it, has the other half.
    longest, longest_change = min(_CHUNK, room // 2), min(_MAX_CHANGE, room // 2)
    for table, changes in found:
        head = {"table": table.name, "columns": [column.name for column in table.columns], "key": [*table.key]}
        piece: list[Change] = []
        length = 0
        for change in changes:
            size = sum(len(value or "") + 8 for row in change if row for value in row)
            if size > longest_change:
                raise UnknownError(f"a row of {table.name} is too long")
            if piece and length + size > longest:
                yield head | {"changes": piece}
                piece, length = [], 0
            piece.append(change)
            length += size
        yield head | {"changes": piece}


def _text(value: object) -> str | None:
    # A server may have an own opinion on what is text.
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


def _by_key(table: Table, rows: Sequence[Row]) -> dict[Row, Row]:
    return {tuple(row[place] for place in table.key): row for row in rows}
