"""What a call has made ready for its statements: what of it is there, and its end."""

from collections.abc import Sequence
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.session import limited_transaction
from smooth_migrations.undo.indexes import Limited, drop_concurrently
from smooth_migrations.undo.transaction import Limits

__all__ = ["GroundPlace", "drop_ground", "drop_groundwork", "ground_found"]

GroundPlace = tuple[str, str]
"""A table, quoted, and the name of a constraint or an index on it."""

_FOUND: Final = """
    WITH wanted AS (SELECT to_regclass(t.of) AS of, t.name FROM unnest(%s::text[], %s::text[]) AS t(of, name))
    SELECT name, convalidated, NULL FROM wanted JOIN pg_constraint ON conrelid = of AND conname = name
    UNION ALL
    SELECT name, indisvalid, indexrelid::regclass::text
    FROM wanted JOIN pg_index ON indrelid = of JOIN pg_class ON oid = indexrelid AND relname = name
"""


def ground_found(connection: BaseDatabaseWrapper, places: Sequence[GroundPlace]) -> dict[str, tuple[bool, str | None]]:
    """Return what is there, by name: whether it is valid, and what it is called if it is an index. Only reads."""
    if not places:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_FOUND, [[table for table, _name in places], [name for _table, name in places]])
        return {name: (is_valid, index) for name, is_valid, index in cursor.fetchall()}


def drop_ground(connection: BaseDatabaseWrapper, places: Sequence[GroundPlace]) -> None:
    """Drop it within the transaction that is open. Takes ACCESS EXCLUSIVE on its tables; safe to repeat."""
    tables = {name: table for table, name in places}
    for name, (_is_valid, index) in ground_found(connection, places).items():
        with passing("lift"), connection.cursor() as cursor:
            cursor.execute(_constraint_gone(tables[name], name) if index is None else f"DROP INDEX IF EXISTS {index}")


def drop_groundwork(
    connection: BaseDatabaseWrapper, places: Sequence[GroundPlace], limits: Limits, limited: Limited
) -> None:
    """Drop it. Safe to repeat.

    Takes ACCESS EXCLUSIVE on the tables of constraints, for a change of the catalogue; an index waits for transactions
    that use its table.

    Args:
        connection: the database's, in autocommit.
        places: what was made ready.
        limits: time-outs of each statement.
        limited: ends one that waits for too long where no time-out can.

    Raises:
        OperationalError: others did not let go of a lock.
    """
    tables = {name: table for table, name in places}
    for name, (_is_valid, index) in ground_found(connection, places).items():
        with passing("lift"):
            if index is not None:
                drop_concurrently(connection, index, limited)
                continue
            with limited_transaction(connection, limits), connection.cursor() as cursor:
                cursor.execute(_constraint_gone(tables[name], name))


def _constraint_gone(table: str, name: str) -> str:
    return f'ALTER TABLE IF EXISTS {table} DROP CONSTRAINT IF EXISTS "{name}"'
