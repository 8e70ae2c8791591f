"""MariaDB's and MySQL's schema: what SHOW CREATE writes, taken apart, so that a difference names the column."""

import re
from collections.abc import Iterator
from typing import Any, Final

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from smooth_migrations.fingerprint.vendor import PREFIX, Descriptions, description_of_migration
from smooth_migrations.quoting import backticked

__all__ = ["MySQL"]

_DATABASE: Final = """
    SELECT concat(default_character_set_name, ' ', default_collation_name)
    FROM information_schema.schemata WHERE schema_name = database()
"""
# Everything that SHOW CREATE can be asked for.
_THINGS: Final = """
    SELECT CASE table_type WHEN 'VIEW' THEN 'VIEW' WHEN 'SEQUENCE' THEN 'SEQUENCE' ELSE 'TABLE' END, table_name
    FROM information_schema.tables
    WHERE table_schema = database() AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED', 'VIEW', 'SEQUENCE')
    UNION ALL
    SELECT routine_type, routine_name FROM information_schema.routines WHERE routine_schema = database()
    UNION ALL
    SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = database()
"""
_TRIGGERS: Final = """
    SELECT event_object_table, trigger_name,
           concat_ws(' ', action_timing, event_manipulation, 'place', action_order, 'by', definer, action_statement)
    FROM information_schema.triggers WHERE trigger_schema = database()
"""
# In which column of the answer the statement is.
_STATEMENT: Final = {"TABLE": 1, "VIEW": 1, "SEQUENCE": 1, "FUNCTION": 2, "PROCEDURE": 2, "PACKAGE": 2, "EVENT": 3}
_STATEMENT_ELSEWHERE: Final = 2
_RECORDS: Final = "django_migrations"

_NAME: Final = r"""(?P<quote>[`"])(?P<name>(?:(?!(?P=quote)).|(?P=quote){2})+)(?P=quote)"""
_COLUMN: Final = re.compile(rf"  {_NAME} (?P<text>.*)", re.DOTALL)
_CONSTRAINT: Final = re.compile(rf"  CONSTRAINT {_NAME} (?P<text>.*)", re.DOTALL)
_INDEX: Final = re.compile(rf"  (?P<kind>(?:[A-Z]+ )?KEY) {_NAME} (?P<text>.*)", re.DOTALL)
_COUNTER: Final = re.compile(r"(?<=^\) )(?P<engine>ENGINE=\S+) AUTO_INCREMENT=\d+")
_SIMPLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class MySQL:
    """Reads `information_schema` and asks SHOW CREATE for each thing, of the one database that is connected to.

    A thing takes its shared lock on the metadata while it is shown. Grants are left out: an unprivileged role may not
    read them. What a role may not see the definition of is named alone.
    """

    def describe(self, connection: BaseDatabaseWrapper) -> Descriptions:
        """Describe everything in the database."""
        with connection.cursor() as cursor:
            cursor.execute(_DATABASE)
            yield "database", str(cursor.fetchone()[0])
            cursor.execute(_THINGS)
            things = [(str(kind), str(name)) for kind, name in cursor.fetchall() if not name.startswith(PREFIX)]
            for kind, name in things:
                statement = _shown(cursor, kind, backticked(name))
                subject = f"{kind.lower()} {_quoted(name)}"
                if kind == "TABLE":
                    yield from _table(subject, statement or "")
                else:
                    yield subject, statement
            cursor.execute(_TRIGGERS)
            for table, name, text in cursor.fetchall():
                if not table.startswith(PREFIX):
                    yield f"table {_quoted(table)} trigger {_quoted(name)}", str(text)
            if ("TABLE", _RECORDS) in things:
                cursor.execute(f"SELECT app, name FROM {_RECORDS}")  # noqa: S608 - a constant
                for app, name in cursor.fetchall():
                    yield description_of_migration(app, name)


def _shown(cursor: CursorWrapper, kind: str, name: str) -> str | None:
    cursor.execute(f"SHOW CREATE {kind} {name}")
    row: tuple[Any, ...] = cursor.fetchone()
    statement = row[_STATEMENT.get(kind, _STATEMENT_ELSEWHERE)]
    return None if statement is None else str(statement)


def _table(subject: str, statement: str) -> Iterator[tuple[str, str | None]]:
    """Take CREATE TABLE apart: the server writes one line for each column, key and constraint."""
    yield subject, None
    columns = []
    options = ""
    for line in statement.split("\n")[1:]:
        text = line.removesuffix(",")
        if options or line.startswith(")"):
            options = f"{options}\n{line}" if options else _COUNTER.sub(r"\g<engine>", line).removeprefix(") ")
        elif match := _COLUMN.fullmatch(text):
            columns.append(_quoted(match["name"]))
            yield f"{subject} column {columns[-1]}", match["text"]
        elif match := _CONSTRAINT.fullmatch(text):
            yield f"{subject} constraint {_quoted(match['name'])}", match["text"]
        elif match := _INDEX.fullmatch(text):
            kind = match["kind"].removesuffix("KEY").lower()
            yield f"{subject} index {_quoted(match['name'])}", kind + match["text"]
        else:
            yield f"{subject} definition", text.strip()
    yield f"{subject} columns", ", ".join(columns)
    yield f"{subject} options", options


def _quoted(name: str) -> str:
    return name if _SIMPLE.fullmatch(name) else f"`{name}`"
