"""The values of one column, as exact texts, and back."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.undo.rows.tables import MAX_ROWS, UNREADABLE, Column, Table, UnknownError
from smooth_migrations.undo.rows.vendors import vendor_of

__all__ = ["UnknownError", "take_column", "write_column"]

# Characters of all values; they are written down in one piece.
_MAX_TEXT = 4_000_000
# Where a value stands in a statement; no name has it.
_VALUE = "\0"


def take_column(connection: BaseDatabaseWrapper, table: str, column: str) -> dict[str, Any] | None:
    """Return what a column has in each row, as JSON can hold it; None where there are no rows. Only reads.

    Args:
        connection: the target's.
        table: its name.
        column: the column's name.

    Raises:
        UnknownError: it cannot be told exactly, or is too much.
    """
    quoted = connection.ops.quote_name(table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT 1 FROM {quoted} LIMIT 1")  # noqa: S608 - a quoted name
        if cursor.fetchone() is None:
            return None
    with transaction.atomic(connection.alias), ExitStack() as stack:
        if connection.vendor != "sqlite":
            stack.enter_context(vendor_of(connection).reading(connection))
        found = _described(connection, table)
        columns = [*(found.columns[place] for place in found.key), _named(found, connection.ops.quote_name(column))]
        if not found.key:
            raise UnknownError(f"{table} has no primary key")
        names = ", ".join(part.read for part in columns)
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {names} FROM {quoted} LIMIT {MAX_ROWS + 1}")  # noqa: S608 - quoted names
            rows = [[_packed(connection, value) for value in row] for row in cursor.fetchall()]
    if len(rows) > MAX_ROWS or sum(len(str(value)) for row in rows for value in row) > _MAX_TEXT:
        raise UnknownError(f"{table} has too many rows, or too long ones")
    if any(UNREADABLE in row for row in rows):
        raise UnknownError(f"{table} has values that are too long")
    return {"table": table, "column": column, "rows": rows}


def write_column(connection: BaseDatabaseWrapper, taken: Mapping[str, Any]) -> None:
    """Give the rows that are there the values that `take_column` returned. Takes row locks alone; safe to repeat.

    Args:
        connection: the target's.
        taken: see above.
    """
    found = _described(connection, taken["table"])
    column = _named(found, connection.ops.quote_name(taken["column"]))
    keys = [found.columns[place] for place in found.key]
    where = " AND ".join(f"{part.name} = {_VALUE}" for part in keys)
    statement = f"UPDATE {found.name} SET {column.name} = {_VALUE} WHERE {where}".replace("%", "%%")  # noqa: S608 - quoted
    for part in (column, *keys):
        statement = statement.replace(_VALUE, part.write, 1)
    with passing("give_back"), transaction.atomic(connection.alias), ExitStack() as stack:
        if connection.vendor != "sqlite":
            stack.enter_context(vendor_of(connection).restoring(connection, [found]))
        with connection.cursor() as cursor:
            for *key, value in taken["rows"]:
                cursor.execute(statement, [_unpacked(value), *map(_unpacked, key)])


def _described(connection: BaseDatabaseWrapper, table: str) -> Table:
    quoted = connection.ops.quote_name(table)
    if connection.vendor == "sqlite":
        return _of_sqlite(connection, table)
    found = vendor_of(connection).known(connection, [quoted])
    if not found:
        raise UnknownError(f"{table} is not there")
    return found[0]


def _of_sqlite(connection: BaseDatabaseWrapper, table: str) -> Table:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, pk FROM pragma_table_info(%s) ORDER BY cid", [table])
        found = cursor.fetchall()
    names = [connection.ops.quote_name(name) for name, _pk in found]
    # Of an expression the driver makes no values of Python's own.
    columns = tuple(Column(name, f"+{name}", "%s") for name in names)
    places = sorted((pk, place) for place, (_name, pk) in enumerate(found) if pk)
    return Table(connection.ops.quote_name(table), columns, tuple(place for _pk, place in places))


def _packed(connection: BaseDatabaseWrapper, value: Any) -> Any:  # noqa: ANN401 - what a driver returns
    if isinstance(value, bytes):
        return {"bytes": value.hex()} if connection.vendor == "sqlite" else value.decode()
    return value if value is None or connection.vendor == "sqlite" else str(value)


def _unpacked(value: Any) -> Any:  # noqa: ANN401 - as above
    return bytes.fromhex(value["bytes"]) if isinstance(value, dict) else value


def _named(table: Table, quoted: str) -> Column:
    for column in table.columns:
        if column.name.strip('"`') == quoted.strip('"`'):
            return column
    raise UnknownError(f"{table.name} has no {quoted} that could be written")
