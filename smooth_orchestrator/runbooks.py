"""Which page of the runbooks is for a report: found by its exit code, and by the types of its errors. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from smooth_orchestrator.errors import NotInPlan, SettlingInterrupted
from smooth_orchestrator.journal.base import JournalUnsureError
from smooth_orchestrator.journal.stored import JournalDamaged
from smooth_orchestrator.report import (
    FILES_GONE,
    HALTED,
    IN_DOUBT,
    MISSING_DATABASE,
    NO_TRACE,
    OTHER_FILES,
    SCHEMA_DIFFERS,
    UNDECIDED,
    UNKNOWN_MOVES,
    UNSEEN,
    WOULD_DISCARD,
    Report,
    RunError,
)

__all__ = ["BY_CAUSE", "BY_CODE", "INDEX", "LOCKED_OUT", "runbook_of", "with_runbook"]

_NEEDS_OPERATOR: Final = 4

# A lock that was not to be had, and a deadlock (PostgreSQL manual, appendix A).
_LOCKS: Final = frozenset({"55P03", "40P01"})

# What drivers raise of a connection that is lost, and of much else.
_AWAY: Final = frozenset({"OperationalError", "InterfaceError"})

INDEX: Final = "docs/runbooks/README.md"
"""The page that lists the others."""

LOCKED_OUT: Final = "docs/runbooks/exit-1-lock-timeout.md"
"""The page of what ended since others did not let go of a lock."""

BY_CODE: Final[Mapping[int, str]] = {
    1: "docs/runbooks/exit-1-failed.md",
    2: "docs/runbooks/exit-2-invalid.md",
    3: "docs/runbooks/exit-3-refused.md",
    4: INDEX,
    5: "docs/runbooks/exit-5-another-run.md",
}
"""The page of each exit code, for a cause that has none of its own."""

BY_CAUSE: Final[Mapping[str, str]] = {
    JournalDamaged.code: "docs/runbooks/exit-3-journal-damaged.md",
    UNDECIDED: "docs/runbooks/exit-4-journal-lost.md",
    UNKNOWN_MOVES: "docs/runbooks/exit-4-moves-unknown.md",
    NO_TRACE: "docs/runbooks/exit-4-no-trace.md",
    NotInPlan.code: "docs/runbooks/exit-4-database-not-in-plan.md",
    MISSING_DATABASE: "docs/runbooks/exit-4-missing-database.md",
    UNSEEN: "docs/runbooks/exit-4-unseen.md",
    OTHER_FILES: "docs/runbooks/exit-4-other-files.md",
    FILES_GONE: "docs/runbooks/exit-4-files-gone.md",
    WOULD_DISCARD: "docs/runbooks/exit-4-rows-written-since.md",
    SCHEMA_DIFFERS: "docs/runbooks/exit-4-schema-differs.md",
    "UndoFailed": "docs/runbooks/exit-4-not-taken-back.md",
    "OwnUndoFailed": "docs/runbooks/exit-4-not-taken-back.md",
    HALTED: "docs/runbooks/exit-4-halted.md",
    JournalUnsureError.code: "docs/runbooks/exit-4-server-away.md",
    IN_DOUBT: "docs/runbooks/exit-4-server-away.md",
    **dict.fromkeys(sorted(_AWAY), "docs/runbooks/exit-4-server-away.md"),
    SettlingInterrupted.code: "docs/runbooks/exit-4-interrupted.md",
}
"""The page of each cause that has one of its own, by the type of its error; of several the first one here counts."""


def runbook_of(report: Report) -> str | None:
    """Return the page that tells what to do about a report; None where nothing is to be done."""
    code = report.exit_code
    if not code:
        return None
    errors = [*_errors(report)]
    if code == _NEEDS_OPERATOR:
        # A look that a lock was in the way of has lost nothing, and has a page of its own.
        types = {error.type for error in errors if error.sqlstate not in _LOCKS or error.type == UNSEEN}
        is_locked_out = _is_locked_out(errors)
        if is_locked_out:
            # What another database tells of the same failure, without its SQLSTATE.
            types -= _AWAY
        general = LOCKED_OUT if is_locked_out else BY_CODE[code]
        return next((page for kind, page in BY_CAUSE.items() if kind in types), general)
    if JournalDamaged.code in {error.type for error in errors}:
        return BY_CAUSE[JournalDamaged.code]
    return LOCKED_OUT if code == 1 and _is_locked_out(errors[:1]) else BY_CODE[code]


def with_runbook(report: Report) -> Report:
    """Return a report that names its page."""
    return replace(report, runbook=runbook_of(report))


def _errors(report: Report) -> Iterator[RunError]:
    """Yield the errors of a report, the first cause first."""
    for error in (report.error, *report.errors, *(each.error for each in report.databases)):
        if isinstance(error, RunError):
            yield error


def _is_locked_out(errors: list[RunError]) -> bool:
    return any(error.sqlstate in _LOCKS for error in errors)
