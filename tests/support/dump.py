"""Write a whole database down as text, the same text for the same content, through a connection of its own."""

import difflib
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from tests.support.dump_mariadb import mariadb_lines
from tests.support.postgres_home import program

__all__ = ["Blank", "diff", "dump"]

Blank = Mapping[str, Iterable[str]]

_OURS = "smooth_"
_COPY = re.compile(r"COPY (?:.+\.)?(?P<table>[^.]+) \((?P<columns>.*)\) FROM stdin;")
_SETVAL = "SELECT pg_catalog.setval("
# The server's and the client's version, and a token that is new in every dump.
_VOLATILE = ("-- Dumped from ", "-- Dumped by ", "\\restrict ", "\\unrestrict ")
# Where in the log a column was made, by servers since 15.20: to an older pg_dump an option like others.
_ATTRIBUTE_VERSION = re.compile(r"ALTER TABLE .* ALTER COLUMN .* SET \(pg_attver=\d+\);")
_ENVIRONMENT = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
_SQLITE_PRAGMAS = ("application_id", "auto_vacuum", "encoding", "journal_mode", "page_size", "user_version")


def dump(
    source: str | Path,
    *,
    ignore_applied_times: bool = False,
    blank: Blank | None = None,
    sequences: bool = True,
) -> str:
    """Return everything in a database but the product's own tables: schema, rows in a fixed order, sequences.

    Takes the share locks of `pg_dump`, and gives up when it has to wait for one.

    Args:
        source: a PostgreSQL or MariaDB URL, or the path of a SQLite file.
        ignore_applied_times: leave out when each migration was applied, so that two runs can be compared.
        blank: further columns to leave out, by table, such as ids that depend on an order.
        sequences: whether the positions of sequences belong to the content.

    Raises:
        RuntimeError: `pg_dump` failed.
        MySQLdb.OperationalError: MariaDB cannot be reached, or a table stays locked.
        sqlite3.OperationalError: the file does not exist or stays locked.
    """
    blanks = {table: set(columns) for table, columns in (blank or {}).items()}
    if ignore_applied_times:
        blanks.setdefault("django_migrations", set()).add("applied")
    if str(source).startswith(("postgresql://", "postgres://")):
        lines = _canonical(_pg_dump(str(source)), blanks, sequences=sequences)
    elif str(source).startswith("mysql://"):
        lines = mariadb_lines(str(source), blanks, sequences=sequences)
    else:
        lines = _sqlite(Path(source), blanks, sequences=sequences)
    return "\n".join(lines) + "\n"


def diff(before: str, after: str) -> str:
    """Return what differs between two dumps, in the words of `diff -u`; empty when nothing does."""
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm=""))


def _pg_dump(dsn: str) -> Iterator[str]:
    given = conninfo_to_dict(dsn)
    # By environment, so that a password stands in nobody's list of processes.
    environment = {name: str(given[key]) for key, name in _ENVIRONMENT.items() if given.get(key)}
    done = subprocess.run(
        [program("pg_dump"), f"--exclude-table=*.{_OURS}*", "--lock-wait-timeout=10s"],
        check=False,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    if done.returncode:
        raise RuntimeError(f"pg_dump failed: {done.stderr}")
    return iter(done.stdout.split("\n"))


def _canonical(lines: Iterator[str], blanks: Mapping[str, set[str]], *, sequences: bool) -> Iterator[str]:
    for line in lines:
        if line.startswith(_VOLATILE) or not line or (line.startswith(_SETVAL) and not sequences):
            continue
        if _ATTRIBUTE_VERSION.fullmatch(line):
            continue
        yield line
        if header := _COPY.fullmatch(line):
            columns = [name.strip('"') for name in header["columns"].split(", ")]
            hidden = blanks.get(header["table"].strip('"'), set())
            yield from sorted("\t".join(_blanked(columns, row.split("\t"), hidden)) for row in _until_end(lines))
            yield "\\."


def _until_end(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line == "\\.":
            return
        yield line


def _blanked(columns: Sequence[str], values: Sequence[str], hidden: set[str]) -> Iterator[str]:
    return ("*" if column in hidden else value for column, value in zip(columns, values, strict=True))


def _sqlite(path: Path, blanks: Mapping[str, set[str]], *, sequences: bool) -> Iterator[str]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda value: value.decode(errors="backslashreplace")
        for pragma in _SQLITE_PRAGMAS:
            yield f"PRAGMA {pragma} = {connection.execute(f'PRAGMA {pragma}').fetchone()[0]}"
        schema = connection.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY tbl_name, type DESC, name"
        ).fetchall()
        for kind, name, table, definition in schema:
            if table.startswith(_OURS) or (name.startswith("sqlite_") and kind == "table"):
                continue
            yield f"{kind} {name}: {definition}"
            if kind == "table":
                yield from _sqlite_rows(connection, name, blanks.get(name, set()))
        if sequences and any(name == "sqlite_sequence" for _, name, _, _ in schema):
            rows = _sqlite_rows(connection, "sqlite_sequence", set())
            positions = [row for row in rows if not row.startswith(f"  '{_OURS}")]
            # The table itself stays for ever once there was a sequence.
            yield from ["sequences", *positions] if positions else ()


def _sqlite_rows(connection: sqlite3.Connection, table: str, hidden: set[str]) -> list[str]:
    cursor = connection.execute('SELECT * FROM "{}"'.format(table.replace('"', '""')))
    columns = [column[0] for column in cursor.description]
    return sorted("  " + "\t".join(_blanked(columns, [repr(value) for value in row], hidden)) for row in cursor)
