"""What a call has made ready for its statements: what of it is there, and its end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.session import limited_transaction
from smooth_migrations.undo.indexes import Limited, drop_concurrently
from smooth_migrations.undo.transaction import Limits

__all__ = ["GroundFound", "GroundPlace", "drop_ground", "drop_groundwork", "ground_found"]

GroundPlace = tuple[str, str]
"""A table, quoted, and the name of a constraint, an index or a column on it."""

# A function by a column's name is the trigger's that keeps it equal, and does not go with its table.
_FOUND: Final = """
    WITH wanted AS (SELECT to_regclass(t.of) AS of, t.name FROM unnest(%s::text[], %s::text[]) AS t(of, name))
    SELECT name, convalidated, NULL, false FROM wanted JOIN pg_constraint ON conrelid = of AND conname = name
    UNION ALL
    SELECT name, indisvalid, indexrelid::regclass::text, false
    FROM wanted JOIN pg_index ON indrelid = of JOIN pg_class ON oid = indexrelid AND relname = name
    UNION ALL
    SELECT name, true, NULL, true FROM wanted
    WHERE EXISTS (SELECT FROM pg_attribute WHERE attrelid = of AND attname = name)
        OR EXISTS (SELECT FROM pg_proc WHERE proname = name AND pg_function_is_visible(oid))
"""


@dataclass(frozen=True, slots=True)
class GroundFound:
    """What stands in one place.

    Args:
        is_valid: whether it is of use.
        index: what it is called if it is an index.
        is_column: whether it is a column, with a trigger and a function by the same name.
    """

    is_valid: bool
    index: str | None
    is_column: bool


def ground_found(connection: BaseDatabaseWrapper, places: Sequence[GroundPlace]) -> dict[str, GroundFound]:
    """Return what is there, by name. Only reads."""
    if not places:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_FOUND, [[table for table, _name in places], [name for _table, name in places]])
        return {name: GroundFound(*found) for name, *found in cursor.fetchall()}


def drop_ground(connection: BaseDatabaseWrapper, places: Sequence[GroundPlace]) -> None:
    """Drop it within the transaction that is open. Takes ACCESS EXCLUSIVE on its tables; safe to repeat."""
    tables = {name: table for table, name in places}
    for name, found in ground_found(connection, places).items():
        with passing("lift"), connection.cursor() as cursor:
            for statement in _gone(tables[name], name, found):
                cursor.execute(statement)


def drop_groundwork(
    connection: BaseDatabaseWrapper, places: Sequence[GroundPlace], limits: Limits, limited: Limited
) -> None:
    """Drop it. Safe to repeat.

    Takes ACCESS EXCLUSIVE on the tables of constraints and columns, for a change of the catalogue; an index waits for
    transactions that use its table.

    Args:
        connection: the database's, in autocommit.
        places: what was made ready.
        limits: time-outs of each statement.
        limited: ends one that waits for too long where no time-out can.

    Raises:
        OperationalError: others did not let go of a lock.
    """
    tables = {name: table for table, name in places}
    for name, found in ground_found(connection, places).items():
        with passing("lift"):
            if found.index is not None:
                drop_concurrently(connection, found.index, limited)
                continue
            with limited_transaction(connection, limits), connection.cursor() as cursor:
                for statement in _gone(tables[name], name, found):
                    cursor.execute(statement)


def _gone(table: str, name: str, found: GroundFound) -> Iterator[str]:
    if found.index is not None:
        yield f"DROP INDEX IF EXISTS {found.index}"
    elif found.is_column:
        yield f'DROP TRIGGER IF EXISTS "{name}" ON {table}'
        yield f'DROP FUNCTION IF EXISTS "{name}"()'
        # Its indexes and checks go with it.
        yield f'ALTER TABLE IF EXISTS {table} DROP COLUMN IF EXISTS "{name}"'
    else:
        yield f'ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS "{name}"'
