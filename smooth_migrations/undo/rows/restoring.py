"""Give rows back what they were before code changed them, where they are still as it left them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import DataError, IntegrityError, NotSupportedError, OperationalError, ProgrammingError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from smooth_migrations.undo.rows.images import Change, Row
from smooth_migrations.undo.rows.tables import Table, UnknownError, Vendor
from smooth_migrations.undo.rows.vendors import vendor_of

__all__ = ["NotRestorableError", "is_complete", "restore_rows"]

# MariaDB's error for a date that the restoring session's mode does not take.
_NO_SUCH_DATE = 1292


class NotRestorableError(Exception):
    """Rows cannot be given back as they were; nothing was changed."""


@dataclass(slots=True)
class _Changed:
    columns: Sequence[str]
    key: Sequence[int]
    keyed: dict[Row, Change] = field(default_factory=dict)
    keyless: list[Change] = field(default_factory=list)

    def add(self, change: Change) -> None:
        row = change[0] or change[1] or ()
        key = tuple(row[place] for place in self.key)
        if not key:
            self.keyless.append(change)
            return
        earlier = self.keyed.get(key)
        if earlier is not None and earlier[1] != change[0]:
            raise NotRestorableError("rows were changed by somebody else between two commits")
        self.keyed[key] = (earlier[0] if earlier else change[0], change[1])

    @property
    def changes(self) -> list[Change]:
        """Return what differs between the beginning and the end."""
        return [*self.keyless, *(change for change in self.keyed.values() if change[0] != change[1])]


def is_complete(details: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether it is known of all that was written down which rows were changed."""
    return not any("unknown" in detail for detail in details)


def restore_rows(connection: BaseDatabaseWrapper, details: Iterable[Mapping[str, Any]]) -> list[str]:
    """Take back what a recorder has written down, in the open transaction; return the tables where not all came back.

    A row that somebody has changed since stays as it is. Takes row locks alone. It is not to be repeated: whoever calls
    strikes out what was written down in the same transaction.

    Args:
        connection: the target's, in a transaction.
        details: what was written down, in order.

    Raises:
        NotRestorableError: a table is not what it was, or the rows would refer to others that are not there.
    """
    changed = _net(details)
    if not changed:
        return []
    vendor = vendor_of(connection)
    try:
        tables = {table.name: table for table in vendor.known(connection, changed)}
    except UnknownError as error:
        raise NotRestorableError(str(error)) from error
    for name, was in changed.items():
        now = tables.get(name)
        if now is None or [column.name for column in now.columns] != [*was.columns] or now.key != tuple(was.key):
            raise NotRestorableError(f"{name} has other columns than it had")
    try:
        with transaction.atomic(connection.alias), vendor.restoring(connection, tables.values()):
            kept = _restore(
                connection, vendor, [(_escaped(tables[name]), was.changes) for name, was in changed.items()]
            )
            return [name.replace("%%", "%") for name in kept]
    except (IntegrityError, ProgrammingError, DataError, NotSupportedError) as error:
        raise NotRestorableError(str(error)) from error
    except OperationalError as error:
        if error.args[:1] != (_NO_SUCH_DATE,):
            raise
        raise NotRestorableError(str(error)) from error


def _net(details: Iterable[Mapping[str, Any]]) -> dict[str, _Changed]:
    changed: dict[str, _Changed] = {}
    for detail in details:
        table = changed.setdefault(detail["table"], _Changed(detail["columns"], detail["key"]))
        for before, after in detail["changes"]:
            table.add((_row(before), _row(after)))
    return {name: table for name, table in changed.items() if table.changes}


def _escaped(table: Table) -> Table:
    """Return a table as it is named where there are parameters."""
    columns = (
        replace(column, name=column.name.replace("%", "%%"), read=column.read.replace("%", "%%"))
        for column in table.columns
    )
    return replace(table, name=table.name.replace("%", "%%"), columns=tuple(columns))


def _row(values: Sequence[str | None] | None) -> Row | None:
    return None if values is None else tuple(values)


def _restore(
    connection: BaseDatabaseWrapper, vendor: Vendor, changed: Sequence[tuple[Table, Sequence[Change]]]
) -> list[str]:
    """First what is new goes, then what was changed is as before, then what is gone comes back."""
    kept: set[str] = set()
    gone: list[tuple[Table, Row]] = []
    with connection.cursor() as cursor:
        restoring = _Restoring(cursor, vendor)
        for table, changes in changed:
            if not table.key and not _all_there(cursor, table, changes):
                kept.add(table.name)
                continue
            for before, after in changes:
                if before is None and after is not None and not restoring.delete_row(table, after):
                    # What is gone already needs not go; what is there is another's.
                    kept |= {table.name} if restoring.is_there(table, after) else set()
                elif before is not None and after is None:
                    gone.append((table, before))
        for table, changes in changed:
            if table.key:
                rows = [(before, after) for before, after in changes if before is not None and after is not None]
                again = _update(connection, restoring, table, rows, kept)
                gone += [(table, before) for before in again]
        for table, before in gone:
            if table.key and restoring.is_there(table, before):
                kept.add(table.name)
            else:
                restoring.insert_row(table, before)
    return sorted(kept)


def _update(
    connection: BaseDatabaseWrapper,
    restoring: "_Restoring",
    table: Table,
    rows: Sequence[tuple[Row, Row]],
    kept: set[str],
) -> list[Row]:
    """Update rows, and return those that were deleted instead, to be inserted: they have exchanged unique values."""
    try:
        with transaction.atomic(connection.alias):
            missed = [after for before, after in rows if not restoring.update_row(table, before, after)]
    except IntegrityError:
        deleted = [(before, after) for before, after in rows if restoring.delete_row(table, after)]
        kept |= {table.name} if len(deleted) < len(rows) else set()
        return [before for before, _after in deleted]
    kept |= {table.name} if missed else set()
    return []


@dataclass(frozen=True, slots=True)
class _Restoring:
    cursor: CursorWrapper
    vendor: Vendor

    def is_there(self, table: Table, row: Row) -> bool:
        """Return whether a row has this one's key."""
        where, params = _where(table, row, table.key)
        self.cursor.execute(f"SELECT 1 FROM {table.name} WHERE {where} LIMIT 1", params)  # noqa: S608 - quoted names
        return self.cursor.fetchone() is not None

    def delete_row(self, table: Table, row: Row) -> bool:
        """Delete a row that has exactly these values; return whether there was one."""
        where, params = _where(table, row, range(len(row)))
        self.cursor.execute(self.vendor.delete_one(table, where), params)
        return bool(self.cursor.rowcount > 0)

    def update_row(self, table: Table, before: Row, after: Row) -> bool:
        """Give a row back the values that were changed, where it has still those that they were changed into."""
        changed = [place for place, value in enumerate(before) if value != after[place]]
        where, params = _where(table, after, [*table.key, *changed])
        values = ", ".join(f"{table.columns[place].name} = {table.columns[place].write}" for place in changed)
        self.cursor.execute(
            f"UPDATE {table.name} SET {values} WHERE {where}",  # noqa: S608 - quoted names
            [*(before[place] for place in changed), *params],
        )
        return bool(self.cursor.rowcount > 0)

    def insert_row(self, table: Table, row: Row) -> None:
        """Insert a row with exactly these values."""
        names = ", ".join(column.name for column in table.columns)
        values = ", ".join(column.write for column in table.columns)
        head = f"INSERT INTO {table.name} ({names}) {self.vendor.given}"
        self.cursor.execute(f"{head}VALUES ({values})", row)


def _all_there(cursor: CursorWrapper, table: Table, changes: Sequence[Change]) -> bool:
    """Return whether a table without a primary key still has all rows that are to go, as often as they are to."""
    wanted: dict[Row, int] = {}
    for _before, after in changes:
        if after is not None:
            wanted[after] = wanted.get(after, 0) + 1
    for row, count in wanted.items():
        where, params = _where(table, row, range(len(row)))
        cursor.execute(f"SELECT COUNT(*) FROM {table.name} WHERE {where}", params)  # noqa: S608 - quoted names
        (found,) = cursor.fetchone() or (0,)
        if found < count:
            return False
    return True


def _where(table: Table, row: Row, places: Iterable[int]) -> tuple[str, list[str]]:
    parts: list[str] = []
    params: list[str] = []
    for place in places:
        column, value = table.columns[place], row[place]
        if value is None:
            parts.append(f"{column.name} IS NULL")
            continue
        if place in table.key:
            # Found by its index; that it is the very same is told by the text.
            parts.append(f"{column.name} = {column.write}")
            params.append(value)
        parts.append(f"{column.read} = %s")
        params.append(value)
    return " AND ".join(parts), params
