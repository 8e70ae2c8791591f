"""The rules, by their codes, which are stable."""

from typing import Final

from smooth_migrations.lint.rules.aliases import IgnoresAlias
from smooth_migrations.lint.rules.base import Found, Rule
from smooth_migrations.lint.rules.comments import BadComment
from smooth_migrations.lint.rules.locks import Index, Rewrite, Scan
from smooth_migrations.lint.rules.releases import RowsInTheWay, Unsplit, UnsplitKind, UnsplitSql, Whole
from smooth_migrations.lint.rules.reversal import Lossy, NoReverse
from smooth_migrations.lint.rules.transactions import CodeUnderLocks, Mixed, NotInTransaction

__all__ = ["RULES", "Found", "Rule"]

_RULES: Final[tuple[Rule, ...]] = (
    Unsplit(),
    Whole(),
    UnsplitSql(),
    UnsplitKind(),
    RowsInTheWay(),
    Rewrite(),
    Index(),
    Scan(),
    Mixed(),
    NotInTransaction(),
    CodeUnderLocks(),
    NoReverse(),
    Lossy(),
    IgnoresAlias(),
)
RULES: Final[tuple[Rule, ...]] = (*_RULES, BadComment({rule.code for rule in _RULES}))
