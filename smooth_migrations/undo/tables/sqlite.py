"""Tables of SQLite as they were, and back to that, where a transaction could not hold a call.

SQLite can alter little of a table, so Django makes it anew from the project's state, in its own order of columns and
without what no model knows of (django.db.backends.sqlite3.schema). It comes back in the same way, from the statement
that made it (SQLite manual, lang_altertable.html, "Making Other Kinds Of Table Schema Changes").
"""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from smooth_migrations.fingerprint.sqlite import description
from smooth_migrations.quoting import double_quoted
from smooth_migrations.undo.renames import Renames
from smooth_migrations.undo.tables.unknown import refuse_to_drop

__all__ = ["SQLite"]

# Virtual tables keep theirs in others of their own; what comes with a constraint has no statement.
_THINGS: Final = r"""
    SELECT name, type, tbl_name, sql FROM main.sqlite_master
    WHERE sql IS NOT NULL AND type IN ('table', 'index', 'trigger') AND sql NOT LIKE 'CREATE VIRTUAL%'
      AND tbl_name NOT LIKE 'sqlite\_%' ESCAPE '\' AND tbl_name NOT LIKE 'smooth\_%' ESCAPE '\'
"""
_HEAD: Final = re.compile(
    r"""\s*CREATE\s+TABLE\s+(?:"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^]]*\]|'(?:[^']|'')*'|[^\s("]+)""", re.IGNORECASE
)
_TEMPORARY: Final = "smooth_anew"
# Not hidden, as generated columns are.
_COLUMNS: Final = "SELECT name FROM pragma_table_xinfo(%s) WHERE hidden = 0"

_Thing = Sequence[str]


class SQLite:
    """The statements that SQLite keeps."""

    def take(self, connection: BaseDatabaseWrapper) -> dict[str, list[str]]:
        """Return (kind, table, statement) by name."""
        with connection.cursor() as cursor:
            return _things(cursor)

    def restore(
        self, connection: BaseDatabaseWrapper, before: Mapping[str, _Thing], renames: Renames, named: Container[str]
    ) -> None:
        """Make anew what differs, with the rows that are in it; all in one transaction.

        Raises:
            UndoFailed: what would be dropped may be what is gone, under another name.
        """
        del renames  # an operation that renames runs wholly or not at all
        wanted = {name: thing for name, thing in before.items() if thing[1] in named}
        with _loosely(connection), transaction.atomic(connection.alias), connection.cursor() as cursor:
            now = {name: thing for name, thing in _things(cursor).items() if thing[1] in named}
            tables, old_tables = (
                {name for name, thing in things.items() if thing[0] == "table"} for things in (now, wanted)
            )
            refuse_to_drop(tables - old_tables, old_tables - tables, partial(_has_rows, cursor))
            for name, (kind, _table, _statement) in now.items():
                if kind == "table" and name not in wanted:
                    cursor.execute(f"DROP TABLE {double_quoted(name)}")
            for name, (kind, _table, statement) in wanted.items():
                if kind == "table" and name not in now:
                    cursor.execute(statement)
                elif kind == "table" and not _is_same(now[name], wanted[name]):
                    _make_anew(cursor, name, statement)
            _restore_rest(cursor, wanted, named)


def _restore_rest(cursor: CursorWrapper, wanted: Mapping[str, _Thing], named: Container[str]) -> None:
    """Give each table its own indexes and triggers, and no others."""
    now = {name: thing for name, thing in _things(cursor).items() if thing[0] != "table" and thing[1] in named}
    rest = {name: thing for name, thing in wanted.items() if thing[0] != "table"}
    kept = {name for name, thing in now.items() if name in rest and _is_same(thing, rest[name])}
    for name, (kind, _table, _statement) in now.items():
        if name not in kept:
            cursor.execute(f"DROP {kind} {double_quoted(name)}")
    for name, (_kind, _table, statement) in rest.items():
        if name not in kept:
            cursor.execute(statement)


def _make_anew(cursor: CursorWrapper, name: str, statement: str) -> None:
    old, temporary = double_quoted(name), double_quoted(_TEMPORARY)
    counted = _counted(cursor, name) if "AUTOINCREMENT" in statement.upper() else None
    cursor.execute(_HEAD.sub(lambda _match: f"CREATE TABLE {temporary}", statement, count=1))
    there, wanted = _columns(cursor, name), _columns(cursor, _TEMPORARY)
    refuse_to_drop({*there} - {*wanted}, {*wanted} - {*there}, partial(_has_rows, cursor), of=name)
    both = ", ".join(double_quoted(column) for column in wanted if column in there)
    cursor.execute(f"INSERT INTO {temporary} ({both}) SELECT {both} FROM {old}")  # noqa: S608 - quoted
    cursor.execute(f"DROP TABLE {old}")
    cursor.execute(f"ALTER TABLE {temporary} RENAME TO {old}")
    if counted is not None:
        cursor.execute("DELETE FROM main.sqlite_sequence WHERE name = %s", [name])
        cursor.execute("INSERT INTO main.sqlite_sequence (name, seq) VALUES (%s, %s)", [name, counted])


def _has_rows(cursor: CursorWrapper, table: str) -> bool:
    cursor.execute(f"SELECT 1 FROM {double_quoted(table)} LIMIT 1")  # noqa: S608 - quoted
    return cursor.fetchone() is not None


def _counted(cursor: CursorWrapper, name: str) -> int | None:
    cursor.execute("SELECT seq FROM main.sqlite_sequence WHERE name = %s", [name])
    row = cursor.fetchone()
    return None if row is None else int(row[0])


def _columns(cursor: CursorWrapper, table: str) -> list[str]:
    cursor.execute(_COLUMNS, [table])
    return [str(name) for (name,) in cursor.fetchall()]


def _things(cursor: CursorWrapper) -> dict[str, list[str]]:
    cursor.execute(_THINGS)
    return {str(name): [str(kind), str(table), str(statement)] for name, kind, table, statement in cursor.fetchall()}


def _is_same(thing: _Thing, other: _Thing) -> bool:
    return [*thing[:2], description(thing[2])] == [*other[:2], description(other[2])]


@contextmanager
def _loosely(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let a table be dropped and named anew without a thought of what refers to it; in a transaction this is so."""
    pragmas = {"foreign_keys": "0", "legacy_alter_table": "1"}
    with connection.cursor() as cursor:
        before = {name: _pragma(cursor, name) for name in pragmas}
        for name, value in pragmas.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        try:
            yield
        finally:
            for name, value in before.items():
                cursor.execute(f"PRAGMA {name} = {value}")


def _pragma(cursor: CursorWrapper, name: str) -> str:
    cursor.execute(f"PRAGMA {name}")
    return str((cursor.fetchone() or ("0",))[0])
