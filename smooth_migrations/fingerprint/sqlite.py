"""SQLite's schema, from the statements that it keeps, and the settings of the file that a migration can change."""

import re
from collections.abc import Iterator
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.fingerprint.vendor import PREFIX, Descriptions, description_of_migration
from smooth_migrations.quoting import double_quoted

__all__ = ["SQLite", "description"]

# Indexes without a statement come with a constraint, which is part of the table's.
_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM main.sqlite_master WHERE sql IS NOT NULL"
_PRAGMAS: Final = ("application_id", "auto_vacuum", "encoding", "user_version")
_RECORDS: Final = "django_migrations"

_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    | (?P<string>'(?:[^']|'')*')
    | "(?P<double>(?:[^"]|"")*)" | `(?P<back>(?:[^`]|``)*)` | \[(?P<square>[^]]*)\]
    | (?P<word>[^\W\d][\w$]*)
    | (?P<other>[\d.]+\w*|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_SIMPLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# In quotes they are names, or text where no column is named so; without quotes values.
_VALUES: Final = frozenset({"NULL", "TRUE", "FALSE", "CURRENT_DATE", "CURRENT_TIME", "CURRENT_TIMESTAMP"})
_TABLE_CONSTRAINTS: Final = frozenset({"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"})
_KEYWORDS: Final = _VALUES | _TABLE_CONSTRAINTS


class SQLite:
    """Reads `sqlite_master` of the main database; takes its SHARED lock for as long as each query reads."""

    def describe(self, connection: BaseDatabaseWrapper) -> Descriptions:
        """Describe everything but SQLite's own tables."""
        with connection.cursor() as cursor:
            cursor.execute(_SCHEMA)
            schema = [tuple(map(str, row)) for row in cursor.fetchall()]
            for pragma in _PRAGMAS:
                cursor.execute(f"PRAGMA main.{pragma}")
                yield f"pragma {pragma}", str(cursor.fetchone()[0])
            if any((kind, name) == ("table", _RECORDS) for kind, name, _, _ in schema):
                cursor.execute(f"SELECT app, name FROM main.{_RECORDS}")  # noqa: S608 - a constant
                for app, name in cursor.fetchall():
                    yield description_of_migration(app, name)
        owners = {name: kind for kind, name, _, _ in schema if kind in {"table", "view"}}
        for kind, name, table, statement in schema:
            if table.startswith((PREFIX, "sqlite_")):
                continue
            subject = f"{kind} {_quoted(name)}"
            if kind in {"index", "trigger"}:
                yield f"{owners.get(table, 'table')} {_quoted(table)} {subject}", _joined(_tokens(statement))
            elif kind == "table":
                yield from _table(subject, _tokens(statement))
            else:
                yield subject, _joined(_tokens(statement))


def description(statement: str) -> str:
    """Return a statement in a form that two ways to write the same have in common."""
    return _joined(_tokens(statement))


def _table(subject: str, tokens: list[str]) -> Iterator[tuple[str, str | None]]:
    """Take CREATE TABLE apart, so that a difference names the column; in a virtual table there are none."""
    yield subject, None
    if "(" not in tokens or "VIRTUAL" in tokens[:3]:
        yield f"{subject} definition", _joined(tokens)
        return
    start = tokens.index("(")
    parts, rest = _split(tokens[start + 1 :])
    columns = []
    for part in parts:
        if part[0].upper() in _TABLE_CONSTRAINTS:
            yield f"{subject} constraint", _joined(part)
        else:
            columns.append(part[0])
            yield f"{subject} column {part[0]}", _joined(part[1:])
    yield f"{subject} columns", ", ".join(columns)
    if rest:
        yield f"{subject} options", _joined(rest)


def _split(tokens: list[str]) -> tuple[list[list[str]], list[str]]:
    """Split what is in the parentheses at its commas; return the parts, and what follows after the parentheses."""
    parts: list[list[str]] = [[]]
    depth = 0
    for position, each in enumerate(tokens):
        if each == ")" and depth == 0:
            return parts, tokens[position + 1 :]
        depth += (each == "(") - (each == ")")
        if each == "," and depth == 0:
            parts.append([])
        else:
            parts[-1].append(each)
    return parts, []


def _tokens(statement: str) -> list[str]:
    """Take a statement apart: without comments, names quoted in one way, and a blank where it separates something."""
    tokens: list[str] = []
    is_apart = False
    for match in _TOKEN.finditer(statement):
        if match["space"]:
            is_apart = True
            continue
        token = _canonical(match)
        if (
            tokens
            and token not in {"(", ")", ","}
            and (tokens[-1] == ")" or (is_apart and tokens[-1] not in {"(", ","}))
        ):
            tokens.append(" ")
        tokens.append(token)
        is_apart = False
    return tokens


def _canonical(match: re.Match[str]) -> str:
    for group, quote in (("double", '"'), ("back", "`"), ("square", "]")):
        if match[group] is not None:
            return _quoted(match[group].replace(quote * 2, quote))
    return match[0]


def _quoted(name: str) -> str:
    if _SIMPLE.fullmatch(name) and name.upper() not in _KEYWORDS:
        return name
    return double_quoted(name)


def _joined(tokens: list[str]) -> str:
    return "".join(", " if each == "," else each for each in tokens).strip()
