"""Rows of PostgreSQL."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.undo.rows.tables import MAX_BYTES, Column, Table, UnknownError, Written

__all__ = ["PostgreSQL"]

# What this transaction has written, by whichever way (PostgreSQL manual, "The Cumulative Statistics System").
_WRITTEN = """
    SELECT current_setting('track_counts') = 'on', array(
        SELECT relid FROM pg_stat_xact_user_tables
        WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND relname NOT LIKE 'smooth\\_migrations\\_%%')
"""
# The same of the catalogues, where functions define, empty tables and keep large objects. What earlier transactions of
# the session wrote is among it for a while.
_DEFINED = """
    SELECT count(*) > 0, COALESCE(bool_or(relname LIKE 'pg\\_largeobject%%'), FALSE) FROM pg_stat_xact_sys_tables
    WHERE n_tup_ins + n_tup_upd + n_tup_del > 0 AND schemaname = 'pg_catalog'
"""
_CATALOGUES = ("class", "attribute", "proc", "type", "constraint", "trigger", "namespace", "rewrite", "enum", "policy")
_VERSIONS = "SELECT {}".format(
    ", ".join(f"(SELECT sum(xmin::text::bigint) FROM pg_{name})" for name in _CATALOGUES)  # noqa: S608 - constants
)
# A transaction has one from its first write on (PostgreSQL manual, "Transactions and Identifiers").
_NUMBER = "SELECT pg_current_xact_id_if_assigned()::text"
# A value of a column has less (PostgreSQL manual, "PostgreSQL Limits"), and so has what is written down at once.
_ROOM = 1_000_000_000
_BY_NAME = "SELECT to_regclass(name)::oid FROM unnest(%s::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
_TABLES = """
    SELECT c.oid, format('%%I.%%I', n.nspname, c.relname),
        c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relhassubclass AND NOT c.relispartition
            AND NOT c.relhasrules AND NOT c.relrowsecurity,
        pg_table_size(c.oid) <= %s,
        EXISTS (SELECT 1 FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal),
        EXISTS (SELECT 1 FROM pg_constraint f WHERE f.confrelid = c.oid AND f.contype = 'f'
            AND NOT (f.confdeltype IN ('a', 'r') AND f.confupdtype IN ('a', 'r')))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY(%s::oid[]) ORDER BY 2
"""
_COLUMNS = """
    SELECT a.attrelid, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
        COALESCE(array_position(i.indkey::int2[], a.attnum), -1)
    FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
    WHERE a.attrelid = ANY(%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    ORDER BY a.attrelid, a.attnum
"""
# How values are written as text; what is local ends with the transaction.
_AS_TEXT = """
    SELECT set_config('TimeZone', 'UTC', %(local)s), set_config('DateStyle', 'ISO', %(local)s),
        set_config('IntervalStyle', 'postgres', %(local)s), set_config('bytea_output', 'hex', %(local)s),
        set_config('extra_float_digits', '1', %(local)s), set_config('lc_monetary', 'C', %(local)s)
"""


class PostgreSQL:
    """What the catalogue tells."""

    given = "OVERRIDING SYSTEM VALUE "

    def is_fresh(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether transactions are READ COMMITTED."""
        return _rows(connection, "SELECT current_setting('transaction_isolation')") == [("read committed",)]

    def prepare(self, other: BaseDatabaseWrapper) -> None:
        """Let a second session wait for a second at most."""
        with other.cursor() as cursor:
            cursor.execute(_AS_TEXT, {"local": False})
            cursor.execute("SELECT set_config('lock_timeout', '1s', false)")
        other.commit()

    def number(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return the transaction's id; None before it has written anything, by whichever way."""
        [(number,)] = _rows(connection, _NUMBER)
        return None if number is None else str(number)

    def has_written(self, connection: BaseDatabaseWrapper, written: Written) -> bool:
        """Return whether the open transaction has an id."""
        del written
        return self.number(connection) is not None

    def lasting(self, connection: BaseDatabaseWrapper, sql: str) -> bool:
        """Return False: there are none."""
        del connection, sql
        return False

    def tables(self, connection: BaseDatabaseWrapper, written: Written) -> Sequence[Table]:
        """Return the tables that the open transaction has written, whatever its statements name."""
        del written
        [(counts, oids)] = _rows(connection, _WRITTEN)
        if not counts:
            raise UnknownError("the server counts no statements (track_counts)")
        return self._described(connection, oids)

    def defines(self, connection: BaseDatabaseWrapper, other: BaseDatabaseWrapper) -> bool:
        """Return whether the catalogues have rows for the open transaction that they have not for the other one."""
        [(may_define, has_objects)] = _rows(connection, _DEFINED)
        return bool(has_objects or (may_define and _rows(connection, _VERSIONS) != _rows(other, _VERSIONS)))

    def outside(self, connection: BaseDatabaseWrapper) -> Collection[str]:
        """Return none: a foreign key does not leave its database."""
        del connection
        return ()

    def room(self, connection: BaseDatabaseWrapper) -> int:
        """Return what a value may have."""
        del connection
        return _ROOM

    def known(self, connection: BaseDatabaseWrapper, names: Collection[str]) -> Sequence[Table]:
        """Return tables by their quoted names."""
        return self._described(connection, [oid for (oid,) in _rows(connection, _BY_NAME, [[*names]])])

    def statements(self, connection: BaseDatabaseWrapper) -> int | None:
        """Return None: the server tells by itself which tables were written."""
        del connection
        return None

    @contextmanager
    def reading(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """Let the open transaction read rows behind a savepoint, with settings that end with it."""
        mark = str(connection.savepoint())
        try:
            _rows(connection, _AS_TEXT, {"local": True})
            yield
        finally:
            connection.savepoint_rollback(mark)
            connection.savepoint_commit(mark)

    @contextmanager
    def restoring(self, connection: BaseDatabaseWrapper, tables: Collection[Table]) -> Iterator[None]:
        """Let the open transaction change rows of these tables within; deferred constraints are checked at the end.

        Raises:
            IntegrityError: a row refers to one that is not there.
        """
        del tables
        with connection.cursor() as cursor:
            cursor.execute(_AS_TEXT, {"local": True})
            cursor.execute("SET CONSTRAINTS ALL DEFERRED")
        yield
        connection.check_constraints()

    def delete_one(self, table: Table, condition: str) -> str:
        """Return a statement that deletes one row of those that meet a condition."""
        one = f"SELECT ctid FROM {table.name} WHERE {condition} LIMIT 1"  # noqa: S608 - quoted names
        return f"DELETE FROM {table.name} WHERE ctid = ({one})"  # noqa: S608 - quoted names

    def _described(self, connection: BaseDatabaseWrapper, oids: Sequence[int]) -> list[Table]:
        names: dict[int, str] = {}
        for oid, name, is_plain, is_small, has_triggers, is_followed in _rows(connection, _TABLES, [MAX_BYTES, oids]):
            if not is_plain or has_triggers or is_followed:
                raise UnknownError(f"{name} is no plain table, or triggers or foreign keys change others with it")
            if not is_small:
                raise UnknownError(f"{name} is too large")
            names[oid] = name
        columns: dict[int, list[Column]] = {oid: [] for oid in names}
        keys: dict[int, dict[int, int]] = {oid: {} for oid in names}
        for oid, column, kind, place in _rows(connection, _COLUMNS, [oids]):
            if place >= 0:
                keys[oid][place] = len(columns[oid])
            columns[oid].append(Column(column, f"CAST({column} AS text)", f"CAST(%s AS {kind.replace('%', '%%')})"))
        return [
            Table(name, tuple(columns[oid]), tuple(index for _place, index in sorted(keys[oid].items())))
            for oid, name in names.items()
        ]


def _rows(connection: BaseDatabaseWrapper, statement: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return list(cursor.fetchall())
