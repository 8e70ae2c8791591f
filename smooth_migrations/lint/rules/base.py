"""What every rule has in common."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import ClassVar

from smooth_migrations.lint.subject import Subject
from smooth_migrations.protocol.linting import Level, LintRule

__all__ = ["Found", "Rule"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a rule has to say.

    Args:
        line: where, from 1.
        message: in words.
        hint: what to do about it.
        file: where else than in the migration's own file.
    """

    line: int
    message: str
    hint: str | None = None
    file: Path | None = None


class Rule(ABC):
    """One thing that a migration should not do unsaid. Its docstring is its title, and the page that explains it."""

    code: ClassVar[str]
    level: ClassVar[Level]

    @abstractmethod
    def look(self, subject: Subject) -> Iterator[Found]:
        """Yield what there is to say of a migration. Asks no database."""

    def told(self) -> LintRule:
        """Return what the rule's code means."""
        title, _, page = cleandoc(type(self).__doc__ or "").partition(".\n\n")
        return LintRule(self.code, title, self.level, page)
