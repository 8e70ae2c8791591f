"""Rows of MySQL and MariaDB."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from django.db import IntegrityError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.quoting import backticked
from smooth_migrations.undo.rows.statements import named_in, qualifying_in
from smooth_migrations.undo.rows.tables import MAX_BYTES, Column, Table, UnknownError, Written

__all__ = ["MySQL"]

_OURS = "smooth_migrations_"
_ISOLATION = "SHOW SESSION VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')"
_NAMES = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = DATABASE()"
_DATABASES = "SELECT schema_name FROM information_schema.schemata WHERE schema_name <> DATABASE()"
# With what may write to them unsaid.
_LASTING = """
    SELECT table_name, COALESCE(engine <> 'InnoDB', FALSE) FROM information_schema.tables
    WHERE table_schema = DATABASE() AND (table_type = 'VIEW' OR table_type = 'BASE TABLE' AND engine <> 'InnoDB')
    UNION ALL
    SELECT event_object_table, FALSE FROM information_schema.triggers WHERE event_object_schema = DATABASE()
"""
_FUNCTIONS = """
    SELECT routine_name FROM information_schema.routines
    WHERE routine_schema = DATABASE() AND routine_type = 'FUNCTION'
"""
_OUTSIDE = """
    SELECT referenced_table_name FROM information_schema.key_column_usage
    WHERE referenced_table_schema = DATABASE() AND table_schema <> DATABASE()
"""
# A foreign key that changes the rows which refer to another.
_FOLLOWING = """
    SELECT referenced_table_name, table_name FROM information_schema.referential_constraints
    WHERE constraint_schema = DATABASE()
      AND NOT (delete_rule IN ('RESTRICT', 'NO ACTION') AND update_rule IN ('RESTRICT', 'NO ACTION'))
"""
_TABLES = """
    SELECT table_name, table_type, engine, data_length FROM information_schema.tables
    WHERE table_schema = DATABASE() AND table_name IN %s
"""
_TRIGGERS = """
    SELECT event_object_table FROM information_schema.triggers
    WHERE event_object_schema = DATABASE() AND event_object_table IN %s
"""
_COLUMNS = """
    SELECT table_name, column_name, data_type, character_set_name, generation_expression, extra
    FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN %s
    ORDER BY table_name, ordinal_position
"""
_KEYS = """
    SELECT table_name, column_name FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND index_name = 'PRIMARY' AND table_name IN %s
    ORDER BY table_name, seq_in_index
"""
_REFERENCES = """
    SELECT table_name, constraint_name, column_name, referenced_table_name, referenced_column_name
    FROM information_schema.key_column_usage
    WHERE table_schema = DATABASE() AND referenced_table_schema = DATABASE()
      AND (table_name IN %s OR referenced_table_name IN %s)
    ORDER BY table_name, constraint_name, ordinal_position
"""
# Whatever code has set for its session: rows are read in one way, and all of them.
_READING: Final[Mapping[str, str | int]] = {"sql_mode": "", "sql_select_limit": 18446744073709551615}
# What is in a table already may be put into it, a zero as a key or as a date too.
_RESTORING: Final[Mapping[str, str | int]] = {
    **_READING,
    "sql_mode": "STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO",
    "sql_safe_updates": 0,
    "time_zone": "+00:00",
}
_WAITING: Final = {"lock_wait_timeout": 1, "innodb_lock_wait_timeout": 1}
# Each statement is counted as it begins, also within a procedure, a function or a trigger.
_COUNTERS = (
    *("insert", "insert_select", "replace", "replace_select", "update", "update_multi", "delete", "delete_multi"),
    *("load",),
)
# What ends a transaction, the driver's own words for it too: one is a setting.
_ENDS = ("commit", "rollback", "begin", "create_table", "alter_table", "drop_table", "truncate", "set_option")
# One row, whatever the session's limit is.
_COUNTED = "SELECT SUM(variable_value) FROM {}.session_status WHERE variable_name IN %s"
_GEOMETRY = ("geometry", "point", "linestring", "polygon", "multi")
_OTHERS = {
    "json": ("HEX(CAST({} AS CHAR))", "CONVERT(UNHEX(%s) USING utf8mb4)"),
    "float": ("CAST(CAST({} AS DOUBLE) AS CHAR)", "CAST(%s AS DOUBLE)"),  # by itself it is written with six digits
    "bit": ("CAST({} + 0 AS CHAR)", "CAST(%s AS UNSIGNED)"),
    # The same in every time zone, and in the hour that comes twice.
    "timestamp": ("CAST(UNIX_TIMESTAMP({}) AS CHAR)", "FROM_UNIXTIME(%s)"),
}
# HEX() of what would not fit into a packet is NULL too.
_HEX = "IF({0} IS NULL, NULL, COALESCE(HEX({0}), CHAR(0)))"
_BYTES = ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob", *_GEOMETRY)


class MySQL:
    """What the information schema tells."""

    given = ""

    def __init__(self) -> None:
        self._lasting: set[str] | None = None

    def is_fresh(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether the session's isolation is READ COMMITTED."""
        rows = _rows(connection, _ISOLATION)
        return bool(rows) and all(value == "READ-COMMITTED" for _name, value in rows)

    def prepare(self, other: BaseDatabaseWrapper) -> None:
        """Let a second session wait for a second at most."""
        _set(other, {**_READING, **_WAITING})

    def number(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return how many statements the session has run that may end a transaction."""
        return str(_counted(connection, _ENDS))

    def has_written(self, connection: BaseDatabaseWrapper, written: Written) -> bool:
        """Return whether a statement that changes rows was seen; that all were seen is told by their count."""
        del connection
        return bool(written.texts)

    def lasting(self, connection: BaseDatabaseWrapper, sql: str) -> bool:
        """Return whether a statement names a table of MyISAM, Aria or the like; asks the server once for them."""
        if self._lasting is None:
            found = _rows(connection, _LASTING)
            self._lasting = (
                {str(name) for name, _is in found} if any(is_lasting for _name, is_lasting in found) else set()
            )
        return bool(self._lasting and named_in([sql], self._lasting))

    def tables(self, connection: BaseDatabaseWrapper, written: Written) -> Sequence[Table]:
        """Return the tables that statements name, with those that foreign keys change along with them.

        Raises:
            UnknownError: these are not all, or one of them cannot be compared.
        """
        kinds = {str(name): str(kind) for name, kind in _rows(connection, _NAMES)}
        named = named_in(written.texts, (name for name in kinds if not name.startswith(_OURS)))
        others = {str(name) for (name,) in _rows(connection, _DATABASES)}
        if not named or qualifying_in(written.texts, others):
            raise UnknownError("tables of another database")
        if written.is_batched and named_in(written.texts, (str(name) for (name,) in _rows(connection, _FUNCTIONS))):
            raise UnknownError("a function may write, too")
        if any(kinds[name] == "VIEW" for name in named):
            raise UnknownError("rows written through a view")
        return self._described(connection, _with_following(named, _rows(connection, _FOLLOWING)))

    def defines(self, connection: BaseDatabaseWrapper, other: BaseDatabaseWrapper) -> bool:
        """Return False: a definition ends the transaction."""
        del connection, other
        return False

    def outside(self, connection: BaseDatabaseWrapper) -> Collection[str]:
        """Return those that the role may know of: only of such is there a word in the information schema."""
        return {backticked(str(name)) for (name,) in _rows(connection, _OUTSIDE)}

    def room(self, connection: BaseDatabaseWrapper) -> int:
        """Return the longest packet that the server takes."""
        return int(_rows(connection, "SELECT @@max_allowed_packet")[0][0])

    def known(self, connection: BaseDatabaseWrapper, names: Collection[str]) -> Sequence[Table]:
        """Return tables by their quoted names."""
        return self._described(connection, {name[1:-1].replace("``", "`") for name in names})

    def statements(self, connection: BaseDatabaseWrapper) -> int | None:
        """Return how many statements that change rows the session has run."""
        return _counted(connection, _COUNTERS)

    @contextmanager
    def reading(self, connection: BaseDatabaseWrapper) -> Iterator[None]:
        """Let the open transaction read rows, which leaves no trace in it, nor in its session's settings."""
        with _setting(connection, _READING):
            yield

    @contextmanager
    def restoring(self, connection: BaseDatabaseWrapper, tables: Collection[Table]) -> Iterator[None]:
        """Let the open transaction change rows of these tables within, with foreign keys checked at the end.

        Raises:
            IntegrityError: a row refers to one that is not there.
        """
        names = [table.name[1:-1].replace("``", "`") for table in tables]
        with _setting(connection, _RESTORING), connection.constraint_checks_disabled():
            yield
            _check(connection, names)

    def delete_one(self, table: Table, condition: str) -> str:
        """Return a statement that deletes one row of those that meet a condition."""
        return f"DELETE FROM {table.name} WHERE {condition} LIMIT 1"  # noqa: S608 - quoted names

    def _described(self, connection: BaseDatabaseWrapper, names: Collection[str]) -> list[Table]:
        wanted = sorted(names)
        for name, kind, engine, length in _rows(connection, _TABLES, wanted):
            if kind != "BASE TABLE" or engine != "InnoDB":
                raise UnknownError(f"{name} is no plain table of InnoDB")
            if (length or 0) > MAX_BYTES:
                raise UnknownError(f"{name} is too large")
        for (name,) in _rows(connection, _TRIGGERS, wanted):
            raise UnknownError(f"{name} has triggers")
        columns: dict[str, dict[str, Column]] = {}
        for name, column, kind, charset, computed, extra in _rows(connection, _COLUMNS, wanted):
            of_table = columns.setdefault(str(name), {})
            if "ON UPDATE" in str(extra).upper():
                raise UnknownError(f"{name} has a column that changes by itself")
            if not computed and "GENERATED" not in str(extra).upper().replace("DEFAULT_GENERATED", ""):
                of_table[str(column)] = _column(str(column), str(kind).lower(), charset)
        keys: dict[str, list[str]] = {}
        for name, column in _rows(connection, _KEYS, wanted):
            keys.setdefault(str(name), []).append(str(column))
        return [_table(name, of_table, keys.get(name, [])) for name, of_table in columns.items()]


def _table(name: str, columns: dict[str, Column], key: Sequence[str]) -> Table:
    places = [*columns]
    if not set(key) <= columns.keys():
        raise UnknownError(f"the key of {name} is computed")
    return Table(backticked(name), tuple(columns.values()), tuple(places.index(column) for column in key))


def _column(name: str, kind: str, charset: str | None) -> Column:
    quoted = backticked(name)
    if charset:
        # As bytes: whatever the session's collation holds for equal is not the same here.
        read, write = _HEX, f"CONVERT(UNHEX(%s) USING {charset})"
    elif kind.startswith(_BYTES):
        read, write = _HEX, "UNHEX(%s)"
    else:
        read, write = _OTHERS.get(kind, ("CAST({} AS CHAR)", "%s"))
    return Column(quoted, read.format(quoted), write)


def _with_following(names: set[str], following: Iterable[tuple[str, str]]) -> set[str]:
    pairs = [(str(parent).lower(), str(child)) for parent, child in following]
    found = set(names)
    while more := {child for parent, child in pairs if parent in {name.lower() for name in found}} - found:
        found |= more
    return found


def _check(connection: BaseDatabaseWrapper, names: Sequence[str]) -> None:
    """Look for rows of these tables, or that refer to them, of which all parts of a foreign key lead nowhere."""
    keys: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for table, key, column, parent, referenced in _rows(connection, _REFERENCES, names, names):
        keys.setdefault((table, key, parent), []).append((backticked(column), backticked(referenced)))
    for (table, key, parent), parts in keys.items():
        joined = " AND ".join(f"child.{column} = parent.{referenced}" for column, referenced in parts)
        whole = " AND ".join(f"child.{column} IS NOT NULL" for column, _referenced in parts)
        tables = f"{backticked(table)} child LEFT JOIN {backticked(parent)} parent ON {joined}"
        if _rows(connection, f"SELECT 1 FROM {tables} WHERE {whole} AND parent.{parts[0][1]} IS NULL LIMIT 1"):  # noqa: S608 - quoted names
            raise IntegrityError(f"rows of {table} refer to others of {parent} that are not there ({key})")


@contextmanager
def _setting(connection: BaseDatabaseWrapper, settings: Mapping[str, str | int]) -> Iterator[None]:
    [before] = _rows(connection, f"SELECT {', '.join(f'@@SESSION.{name}' for name in settings)}")
    _set(connection, settings)
    try:
        yield
    finally:
        _set(connection, dict(zip(settings, before, strict=True)))


def _set(connection: BaseDatabaseWrapper, settings: Mapping[str, str | int]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {', '.join(f'{name} = %s' for name in settings)}", [*settings.values()])


def _counted(connection: BaseDatabaseWrapper, names: Iterable[str]) -> int:
    schema = "information_schema" if getattr(connection, "mysql_is_mariadb", False) else "performance_schema"
    [(count,)] = _rows(connection, _COUNTED.format(schema), [f"Com_{name}" for name in names])
    return int(count)


def _rows(connection: BaseDatabaseWrapper, statement: str, *params: Sequence[str]) -> list[Any]:
    given: list[Any] = [*params]
    with connection.cursor() as cursor:
        cursor.execute(statement, given or None)
        return list(cursor.fetchall())
