"""The order of a table's columns, for which PostgreSQL has no statement: the columns that follow are made anew."""

from collections.abc import Mapping, Sequence
from typing import Final

from django.db.backends.utils import CursorWrapper

from smooth_migrations.quoting import double_quoted

__all__ = ["reorder_columns"]

# More would take long under an exclusive lock.
_MOST_ROWS: Final = 10_000
_REFERRING: Final = """
    SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint
    WHERE contype = 'f' AND confrelid = %s::regclass AND conislocal
      AND EXISTS (SELECT 1 FROM pg_attribute
                  WHERE attrelid = confrelid AND attnum = ANY (confkey) AND attname = ANY (%s))
"""
_HAS_TRIGGERS: Final = "SELECT EXISTS (SELECT 1 FROM pg_trigger WHERE tgrelid = %s::regclass AND NOT tgisinternal)"
_COMMENT: Final = """
    SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s
"""
_SEQUENCE: Final = """
    SELECT format('START WITH %%s INCREMENT BY %%s MINVALUE %%s MAXVALUE %%s CACHE %%s %%s', seqstart, seqincrement,
                  seqmin, seqmax, seqcache, CASE WHEN seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
    FROM pg_sequence WHERE seqrelid = %s::regclass
"""
_BETWEEN: Final = "smooth_moved"
_NOT_NULL: Final = " NOT NULL"
_IDENTITY: Final = " AS IDENTITY"
_GENERATED: Final = (" STORED", " VIRTUAL")


def reorder_columns(
    cursor: CursorWrapper, table: str, now: Mapping[str, str], before: Mapping[str, str], sequences: Mapping[str, str]
) -> None:
    """Put the columns of a table into the order that they had; in the open transaction.

    Constraints and indexes of the columns that are made anew go with them, and are to be made again by the caller, as
    are foreign keys that refer to them. A table with many rows, or with rows and triggers that would fire, stays as it
    is. Takes ACCESS EXCLUSIVE on the table.

    Args:
        cursor: where names have to be qualified.
        table: its qualified name.
        now: definitions by column, in their order.
        before: the same as it is to be.
        sequences: owned sequences by column.

    Raises:
        DatabaseError: 2BP01, when something else depends on such a column, such as a view.
    """
    moved = _moved([*now], [*before])
    cursor.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {_MOST_ROWS + 1}) AS found")  # noqa: S608 - quoted by the server
    (rows,) = cursor.fetchone()
    cursor.execute(_HAS_TRIGGERS, [table])
    (has_triggers,) = cursor.fetchone()
    if rows > _MOST_ROWS or (rows and has_triggers):
        return
    cursor.execute(_REFERRING, [table, moved])
    for referring, name in cursor.fetchall():
        cursor.execute(f"ALTER TABLE {referring} DROP CONSTRAINT {name}")
    for column in moved:
        _move(cursor, table, column, before[column], sequences.get(column))


def _moved(now: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return which columns to put behind the others, one after another."""
    kept = 0
    for column in now:
        if column == wanted[kept]:
            kept += 1
    return [*wanted[kept:]]


def _move(cursor: CursorWrapper, table: str, column: str, definition: str, sequence: str | None) -> None:
    name = double_quoted(column)
    cursor.execute(_COMMENT, [table, column])
    (comment,) = cursor.fetchone()
    is_identity, is_generated = _IDENTITY in definition, definition.removesuffix(_NOT_NULL).endswith(_GENERATED)
    # Values first: a table with rows takes no NOT NULL without them.
    text = definition if is_identity or is_generated else definition.removesuffix(_NOT_NULL)
    if sequence is not None and is_identity:
        cursor.execute(_SEQUENCE, [sequence])
        text = text.replace(_IDENTITY, f"{_IDENTITY} ({cursor.fetchone()[0]})")
    cursor.execute(f"ALTER TABLE {table} RENAME COLUMN {name} TO {_BETWEEN}")
    cursor.execute(f"ALTER TABLE {table} ADD COLUMN {name} {text}")
    if not is_generated:
        cursor.execute(f"UPDATE {table} SET {name} = {_BETWEEN}")  # noqa: S608 - quoted
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")
    if definition.endswith(_NOT_NULL) and not text.endswith(_NOT_NULL):
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL")
    if sequence is not None and is_identity:
        position = f"setval(pg_get_serial_sequence(%s, %s), last_value, is_called) FROM {sequence}"
        cursor.execute(f"SELECT {position}", [table, column])
    elif sequence is not None:
        cursor.execute(f"ALTER SEQUENCE {sequence} OWNED BY {table}.{name}")
    cursor.execute(f"ALTER TABLE {table} DROP COLUMN {_BETWEEN}")
    if comment is not None:
        cursor.execute(f"COMMENT ON COLUMN {table}.{name} IS %s", [comment])
