"""What a look at migration files has found, without a database."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Level", "LintFinding", "LintReport", "LintRule", "LintedMigration"]


class Level(StrEnum):
    """How grave a finding is; the words are those of SARIF 2.1.0 (3.27.10)."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class LintRule:
    """What a code means.

    Args:
        code: stable, such as `SM101`.
        title: in a few words.
        level: of its findings.
        page: why that is so, and what to do about it, in Markdown.
    """

    code: str
    title: str
    level: Level
    page: str

    def __str__(self) -> str:
        return f"{self.code} ({self.level}): {self.title}\n\n{self.page}"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """Something to look at in a migration file.

    Args:
        code: of the rule.
        level: of the rule.
        migration: `app.name`.
        file: absolute.
        line: in it, from 1.
        message: in words.
        hint: what to do about it.
        allowed: the reason that the file gives for it, where it gives one.
    """

    code: str
    level: Level
    migration: str
    file: str
    line: int
    message: str
    hint: str | None = None
    allowed: str | None = None

    @property
    def fails(self) -> bool:
        """Whether it is more than a note, and not allowed."""
        return self.level is not Level.NOTE and self.allowed is None


@dataclass(frozen=True, slots=True)
class LintedMigration:
    """What a migration would do.

    Args:
        migration: `app.name`.
        file: absolute.
        atomic: whether it says that it can run in a transaction.
        expand: what is done at the deploy.
        contract: what is held back until `finalise`.
        locks: taken at the deploy on tables that were there before, in words.
        rewrites: what writes all rows of a table anew, in words.
        irreversible: what has no way back once it is committed, in words.
        old_release: why the release still running goes on, operation by operation that is split.
        new_release: the same of the one that starts.
    """

    migration: str
    file: str
    atomic: bool
    expand: tuple[str, ...] = ()
    contract: tuple[str, ...] = ()
    locks: tuple[str, ...] = ()
    rewrites: tuple[str, ...] = ()
    irreversible: tuple[str, ...] = ()
    old_release: tuple[str, ...] = ()
    new_release: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LintReport:
    """All that was found in one project, for one of its databases.

    Args:
        database: which one, by its alias, or as a plan calls it.
        basis: which migrations were looked at, and why these, in words.
        migrations: in the order in which they run.
        findings: in the same order, and by line.
        rules: all that there are.
    """

    database: str
    basis: str
    migrations: tuple[LintedMigration, ...] = ()
    findings: tuple[LintFinding, ...] = ()
    rules: tuple[LintRule, ...] = ()

    @property
    def fails(self) -> bool:
        """Whether anything was found that is more than a note, and not allowed."""
        return any(finding.fails for finding in self.findings)
