"""The command with which an operator settles what a run has left, as its report names it. Pure."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smooth_orchestrator.errors import NotInPlan
from smooth_orchestrator.report import (
    ACCEPT,
    FILES_GONE,
    NO_TRACE,
    OTHER_FILES,
    SCHEMA_DIFFERS,
    UNDECIDED,
    UNSEEN,
    WOULD_DISCARD,
    Report,
    RunError,
    RunOutcome,
)
from smooth_orchestrator.runbooks import with_runbook

__all__ = ["told_how_to_settle"]

# Which option of `recover` an error of this type asks an operator for.
_SETTLING: Final = {"--discard-data": WOULD_DISCARD, "--no-fingerprint": SCHEMA_DIFFERS}


def told_how_to_settle(report: Report, plan: Path, said: Sequence[str] = ()) -> Report:
    """Return a report that names the command, for this very plan, with which an operator settles what is in doubt.

    It names the page of the runbooks as well.

    Args:
        report: any.
        plan: its file.
        said: options of `recover` that an operator has given; the command repeats them.
    """
    report = with_runbook(report)
    if report.outcome is not RunOutcome.NEEDS_OPERATOR:
        return report
    command = f"smooth-orchestrate recover {shlex.quote(str(plan))}"
    # Each database tells its own, whatever was the first cause.
    errors = (report.error, *report.errors, *(each.error for each in report.databases))
    accepting = [option for option in report.settle_with if option.startswith(ACCEPT)]
    types = {error.type for error in errors if isinstance(error, RunError)}
    # Nobody is asked to lose anything before somebody could look at all of it.
    is_seen = UNSEEN not in types
    wanted = [option for option, kind in _SETTLING.items() if kind in types and (is_seen or kind != WOULD_DISCARD)]
    by_hand: tuple[list[str], ...] = (accepting,)
    if accepting and {FILES_GONE, OTHER_FILES} & types:
        # Who has the files needs no hand.
        by_hand = ([], accepting)
    choices: tuple[str | None, ...] = ("--commit", "--abort") if UNDECIDED in types else (None,)
    if NO_TRACE in types:
        choices = ("--commit",)
    if NotInPlan.code in types:
        # What does not tell an operator's choices is settled by no command for this plan.
        choices = tuple(option for option in report.settle_with if option not in accepting)
    commands = [
        " ".join(dict.fromkeys(filter(None, (command, choice, *said, *wanted, *accepted))))
        for choice in choices
        for accepted in by_hand
    ]
    return replace(report, settle_with=tuple(dict.fromkeys(commands)))
