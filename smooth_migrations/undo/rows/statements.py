"""What a statement does to rows, as far as its text tells."""

import re
from collections.abc import Iterable
from enum import Enum

from smooth_migrations.undo.named import naming

__all__ = ["Kind", "kind_of", "named_in", "qualifying_in"]

_LEADING = re.compile(r"\A(?:\s|\(|--[^\n]*\n|#[^\n]*\n|/\*(?!M?!).*?\*/)*", re.DOTALL)
_READS = re.compile(
    r"(SELECT|WITH|SHOW|EXPLAIN|DESC|DESCRIBE|SAVEPOINT|RELEASE|ROLLBACK\s+TO|SET|VALUES|FETCH)\b", re.IGNORECASE
)
_WRITES = re.compile(r"(WITH\b.*)?\b(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE | re.DOTALL)
# Of those that begin as one that only reads: what makes a table, commits, or sees other rows than those of the moment.
_MORE = re.compile(
    r"((SELECT|WITH)\b.*\bINTO\b|SET\b.*\b(AUTOCOMMIT|ISOLATION|STATEMENT)\b)", re.IGNORECASE | re.DOTALL
)
_RECORDS = re.compile(r"CREATE TABLE [\"`]?django_migrations\b", re.IGNORECASE)
_DOT = r"[`\"]?\s*\."


class Kind(Enum):
    """What a statement may change."""

    NOTHING = "nothing"
    ROWS = "rows"
    MORE = "more"  # definitions, or nobody knows


def kind_of(sql: str) -> Kind:
    """Return what a statement may change; whatever is not plain is said to change more than rows."""
    text = _LEADING.sub("", sql, count=1)
    if ";" in text.rstrip("; \t\r\n"):
        return Kind.MORE
    if _WRITES.match(text):
        return Kind.ROWS
    if _READS.match(text) and not _MORE.match(text):
        return Kind.NOTHING
    # Django makes this table when it is missing, at a moment of its own.
    return Kind.NOTHING if _RECORDS.match(text) else Kind.MORE


def named_in(texts: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return which of these names statements have in them, as whatever; quotes and comments hide none."""
    whole = "\n".join(texts)
    return {name for name in names if naming(name).search(whole)}


def qualifying_in(texts: Iterable[str], names: Iterable[str]) -> set[str]:
    """Return which of these names stand before a dot."""
    whole = "\n".join(texts)
    return {name for name in names if re.search(naming(name).pattern + _DOT, whole, re.IGNORECASE)}
