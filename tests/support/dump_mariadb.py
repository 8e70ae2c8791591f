"""Write a whole MariaDB database down as text, the same text for the same content.

`mariadb-dump` would not do: it keeps the order in which indexes were made, which no statement depends on, and the
columns of its rows cannot be told apart.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any
from urllib.parse import unquote, urlsplit

__all__ = ["mariadb_lines"]

_OURS = "smooth_"
_POSITION = re.compile(r"^(\) ENGINE=\w+) AUTO_INCREMENT=\d+")
_WITHIN = re.compile(r"^  (?:(?:UNIQUE |FULLTEXT |SPATIAL )?KEY|CONSTRAINT) ")
# The same text whatever this server and this session prefer; a lock is not waited for longer than that.
_SESSION = "SET SESSION time_zone = '+00:00', sql_mode = '', sql_quote_show_create = 1, lock_wait_timeout = 10"
_TABLES = "SELECT table_type, table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
_TRIGGERS = """
    SELECT trigger_name, event_object_table FROM information_schema.triggers WHERE trigger_schema = DATABASE()
    ORDER BY event_object_table, action_timing, event_manipulation, action_order
"""
_ROUTINES = """
    SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()
    ORDER BY routine_type, routine_name
"""
_EVENTS = "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE() ORDER BY event_name"


def mariadb_lines(dsn: str, blanks: Mapping[str, set[str]], *, sequences: bool) -> Iterator[str]:
    """Yield what a database holds: tables with their rows in order, views, sequences, triggers, routines, events.

    Args:
        dsn: a URL that begins with mysql://.
        blanks: columns whose values are left out, by table.
        sequences: whether the next AUTO_INCREMENT value and the positions of sequences belong to the content.

    Raises:
        MySQLdb.OperationalError: the server cannot be reached, or a table stays locked.
    """
    import MySQLdb  # noqa: PLC0415 - not everywhere installed

    at = urlsplit(dsn)
    name = at.path.removeprefix("/")
    with (
        # Without conversions a value is the server's own text of it, or bytes where it is no text.
        closing(
            MySQLdb.connect(
                host=at.hostname or "",
                port=at.port or 3306,
                user=at.username or "",
                password=unquote(at.password or ""),
                database=name,
                charset="utf8mb4",
                conv={},
                autocommit=True,
            )
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(_SESSION)
        yield str(_rows(cursor, f"SHOW CREATE DATABASE {_quoted(name)}")[0][1]).replace(_quoted(name), "*", 1)
        for kind, table in sorted(_rows(cursor, _TABLES), key=lambda row: str(row[1])):
            if not table.startswith(_OURS):
                yield from _relation(cursor, kind, table, blanks.get(table, set()), sequences=sequences)
        yield from _programs(cursor)


def _relation(cursor: Any, kind: str, name: str, hidden: set[str], *, sequences: bool) -> Iterator[str]:  # noqa: ANN401 - MySQLdb's
    shown = kind if kind in {"VIEW", "SEQUENCE"} else "TABLE"
    definition = str(_rows(cursor, f"SHOW CREATE {shown} {_quoted(name)}")[0][1])
    yield from _canonical(definition, sequences=sequences)
    if kind == "VIEW" or (kind == "SEQUENCE" and not sequences):
        return
    rows = _rows(cursor, f"SELECT * FROM {_quoted(name)}")
    columns = [column[0] for column in cursor.description]
    yield from sorted(
        "  " + "\t".join("*" if column in hidden else repr(value) for column, value in zip(columns, row, strict=True))
        for row in rows
    )


def _canonical(definition: str, *, sequences: bool) -> Iterator[str]:
    """Put indexes and constraints, which stand together, into the order of their names."""
    within: list[str] = []
    for line in definition.splitlines():
        if _WITHIN.match(line):
            within.append(line.rstrip(","))
            continue
        yield from (f"{each}," for each in sorted(within))
        within.clear()
        yield line if sequences else _POSITION.sub(r"\1", line)


def _programs(cursor: Any) -> Iterator[str]:  # noqa: ANN401 - MySQLdb's
    for name, table in _rows(cursor, _TRIGGERS):
        if not str(table).startswith(_OURS):
            yield _with_mode(_rows(cursor, f"SHOW CREATE TRIGGER {_quoted(name)}")[0][1:3])
    for kind, name in _rows(cursor, _ROUTINES):
        if not str(name).startswith(_OURS):
            yield _with_mode(_rows(cursor, f"SHOW CREATE {kind} {_quoted(name)}")[0][1:3])
    for (name,) in _rows(cursor, _EVENTS):
        _name, mode, _zone, definition, *_rest = _rows(cursor, f"SHOW CREATE EVENT {_quoted(name)}")[0]
        yield _with_mode((mode, definition))


def _with_mode(pair: tuple[str, str]) -> str:
    mode, definition = pair
    return f"{definition} -- {mode}"


def _rows(cursor: Any, statement: str) -> list[Any]:  # noqa: ANN401 - MySQLdb's
    cursor.execute(statement)
    return list(cursor.fetchall())


def _quoted(name: str) -> str:
    return "`{}`".format(name.replace("`", "``"))
