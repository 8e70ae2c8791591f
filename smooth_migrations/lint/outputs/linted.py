"""What is written down of a look at one project, or at those of a plan."""

from dataclasses import dataclass
from pathlib import Path

from smooth_migrations.protocol.linting import LintFinding, LintReport

__all__ = ["Linted"]


@dataclass(frozen=True, slots=True)
class Linted:
    """What was found.

    Args:
        reports: one for each database that was asked for.
        root: the directory from which files are named.
        version: of this program.
        deploy: the name of the plan's deploy, where there is a plan.
    """

    reports: tuple[LintReport, ...]
    root: Path
    version: str
    deploy: str | None = None

    @property
    def exit_code(self) -> int:
        """1 where anything was found that is more than a note, and not allowed."""
        return int(any(report.fails for report in self.reports))

    @property
    def findings(self) -> tuple[LintFinding, ...]:
        """What was found, once, for however many databases that is so."""
        return tuple(dict.fromkeys(finding for report in self.reports for finding in report.findings))

    def named(self, file: str) -> str:
        """Return a file's name from the root, or all of it where it is elsewhere."""
        path = Path(file)
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()
