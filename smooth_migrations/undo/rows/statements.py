"""What a statement does to rows, as far as its text tells."""

import re
from enum import Enum

__all__ = ["Kind", "kind_of", "qualifiers_in", "words_in"]

_LEADING = re.compile(r"\A(?:\s|\(|--[^\n]*\n|#[^\n]*\n|/\*(?!!).*?\*/)*", re.DOTALL)
_READS = re.compile(
    r"(SELECT|WITH|SHOW|EXPLAIN|DESC|DESCRIBE|SAVEPOINT|RELEASE|ROLLBACK\s+TO|SET|VALUES|FETCH)\b", re.IGNORECASE
)
_WRITES = re.compile(r"(WITH\b.*)?\b(INSERT|UPDATE|DELETE|REPLACE|MERGE)\b", re.IGNORECASE | re.DOTALL)
# Of those that begin as one that only reads: what makes a table, commits, or sees other rows than those of the moment.
_MORE = re.compile(
    r"((SELECT|WITH)\b.*\bINTO\b|SET\b.*\b(AUTOCOMMIT|ISOLATION|STATEMENT)\b)", re.IGNORECASE | re.DOTALL
)
_RECORDS = re.compile(r"CREATE TABLE [\"`]?django_migrations\b", re.IGNORECASE)
_WORD = re.compile(r"[\w$]+|`(?:[^`]|``)+`")
_QUALIFIER = re.compile(r"([\w$]+|`(?:[^`]|``)+`)\s*\.")


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


def words_in(sql: str) -> set[str]:
    """Return every word of a statement that may be a table's name, in small letters."""
    return {_plain(word) for word in _WORD.findall(sql)}


def qualifiers_in(sql: str) -> set[str]:
    """Return what stands before a dot, in small letters: a table, its alias, or a database."""
    return {_plain(word) for word in _QUALIFIER.findall(sql)}


def _plain(word: str) -> str:
    return (word[1:-1].replace("``", "`") if word.startswith("`") else word).lower()
