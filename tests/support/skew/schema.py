"""What a database holds but for rows, as text that is the same for the same tables."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing

from tests.support.dump import dump
from tests.support.histories import Database, SqliteDatabase
from tests.support.mariadb_database import MariadbDatabase
from tests.support.postgres_database import PostgresDatabase
from tests.support.two_releases import content

__all__ = ["schema_of"]

_COPIED = re.compile(r"^COPY .*?^\\\.$", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^  b?'.*\n", re.MULTILINE)
# What is made unique once more has the name that Django gives when it alters a field, and not the server's own.
_UNIQUE = re.compile(r"_[0-9a-f]{8}_uniq\b")
_UNIQUE_KEY = re.compile(r"`\w+_[0-9a-f]{8}_uniq` \(`(\w+)`\)")
_OURS = "^(smooth|django|sqlite)_"


def schema_of(database: Database) -> str:
    """Return what is in a database but for rows: the app's it deletes."""
    match database:
        case SqliteDatabase():
            return _of_sqlite(database)
        case MariadbDatabase():
            return _of_mariadb(database)
        case _:
            return _of_postgresql(database)


def _of_postgresql(database: PostgresDatabase) -> str:
    with database.connect() as session:
        tables = session.execute(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class "
            "WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname !~ %s",
            [_OURS],
        ).fetchall()
        session.execute(f"TRUNCATE {tables[0][0]}".encode())
    return _UNIQUE.sub("_key", _COPIED.sub("", str(content(database))))


def _of_mariadb(database: MariadbDatabase) -> str:
    with database.connect() as session, session.cursor() as cursor:
        cursor.execute("SHOW TABLES")
        names = [name for (name,) in cursor.fetchall() if not re.match(_OURS, name)]
        cursor.execute("SET foreign_key_checks = 0")
        for name in names:
            cursor.execute(f"TRUNCATE {name}")
    return _UNIQUE_KEY.sub(r"`\1` (`\1`)", _ROW.sub("", dump(database.dsn, sequences=False)))


def _of_sqlite(database: SqliteDatabase) -> str:
    with closing(sqlite3.connect(database.path, isolation_level=None)) as connection:
        entries = connection.execute("SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        for kind, name, _ in entries:
            if kind == "table" and not re.match(_OURS, name):
                connection.execute(f"DELETE FROM {name}")
    return "\n".join(sorted(line for _, name, sql in entries if not name.startswith("smooth_") for line in _lines(sql)))


def _lines(sql: str) -> Iterator[str]:
    """Yield the parts of a definition; every table that is made anew has its columns in another order."""
    head, _, rest = sql.partition("(")
    depth, part = 0, ""
    for letter in rest.rpartition(")")[0]:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and not depth:
            yield f"{head}: {part.strip()}"
            part = ""
        else:
            part += letter
    yield f"{head}: {part.strip()}"
