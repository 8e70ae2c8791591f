"""What SQL that a migration carries does, as far as its words tell."""

import re
from collections.abc import Iterator

from django.db.migrations import RunSQL

__all__ = ["breaks", "builds_index", "needs_no_transaction", "statements_of"]

# What may hold words that are no statement's: texts, bodies of functions, and comments.
_SILENT = re.compile(r"'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/", re.DOTALL)
_BREAKS = re.compile(
    r"\bDROP\s+(?:TABLE|COLUMN|VIEW|MATERIALIZED\s+VIEW|SCHEMA|TYPE)\b|\bRENAME\b|\bTRUNCATE\b|\bSET\s+NOT\s+NULL\b"
    r"|\bALTER\b[^;]*\bTYPE\b|\bMODIFY\b|\bCHANGE\s+COLUMN\b|\bADD\s+(?:CONSTRAINT|UNIQUE|CHECK|PRIMARY|FOREIGN)\b"
    r"|\bADD\s+COLUMN\b(?![^;]*\bDEFAULT\b)[^;,]*\bNOT\s+NULL\b|\bCREATE\s+UNIQUE\s+INDEX\b",
    re.IGNORECASE,
)
_BUILDS_INDEX = re.compile(
    r"\bCREATE\s+(?:UNIQUE\s+)?INDEX\b(?!\s+CONCURRENTLY)|\bREINDEX\b(?![^;]*\bCONCURRENTLY\b)", re.IGNORECASE
)
_NO_TRANSACTION = re.compile(
    r"\bINDEX\s+CONCURRENTLY\b|\bREINDEX\b[^;]*\bCONCURRENTLY\b|\bVACUUM\b|\bALTER\s+SYSTEM\b"
    r"|\b(?:CREATE|DROP)\s+(?:DATABASE|TABLESPACE)\b|\bDETACH\s+PARTITION\b[^;]*\bCONCURRENTLY\b",
    re.IGNORECASE,
)


def statements_of(operation: RunSQL) -> Iterator[str]:
    """Yield the texts that an operation runs, without what their quotes and comments hold."""
    texts = [operation.sql] if isinstance(operation.sql, str) else operation.sql
    for text in texts or ():
        yield _SILENT.sub(" ", str(text if isinstance(text, str) else text[0]))


def _first(pattern: re.Pattern[str], operation: RunSQL) -> str | None:
    found = next(filter(None, (pattern.search(text) for text in statements_of(operation))), None)
    return " ".join(found[0].split()) if found else None


def breaks(operation: RunSQL) -> str | None:
    """Return the words with which SQL takes something from a release that is running."""
    return _first(_BREAKS, operation)


def builds_index(operation: RunSQL) -> str | None:
    """Return the words with which SQL builds an index while writers wait."""
    return _first(_BUILDS_INDEX, operation)


def needs_no_transaction(operation: RunSQL) -> str | None:
    """Return the words that PostgreSQL runs in no transaction (PostgreSQL manual, CREATE INDEX, VACUUM, …)."""
    return _first(_NO_TRANSACTION, operation)
