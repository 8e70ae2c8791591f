"""The commands with which an operator settles what a run has left, as its report names them. Pure."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smooth_orchestrator.errors import NotInPlan
from smooth_orchestrator.report import (
    ACCEPT,
    FILES_GONE,
    HALTED,
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

    A run that has halted leaves nothing in doubt, and nothing for `recover`: it goes on, or back, and is over where it
    was taken back since. The page of the runbooks is named as well.

    Args:
        report: any.
        plan: its file.
        said: options of `recover` that an operator has given; the command repeats them.
    """
    if report.since:
        return report
    report = with_runbook(report)
    if report.outcome not in {RunOutcome.NEEDS_OPERATOR, RunOutcome.HALTED}:
        return report
    # Each database tells its own, whatever was the first cause.
    errors = (report.error, *report.errors, *(each.error for each in report.databases))
    types = {error.type for error in errors if isinstance(error, RunError)}
    file = shlex.quote(str(plan))
    if HALTED in types:
        back = f"smooth-orchestrate rollback {file} --run {shlex.quote(report.run_id)}"
        return replace(report, settle_with=(f"smooth-orchestrate deploy {file}", back))
    command = f"smooth-orchestrate recover {file}"
    ways = (" ".join(dict.fromkeys((command, *options))) for options in _ways(report.settle_with, types, said))
    return replace(report, settle_with=tuple(dict.fromkeys(ways)))


def _ways(asked: Sequence[str], types: Collection[str], said: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Return the options of each command that settles it: what is asked for, of errors of these types."""
    accepting = tuple(option for option in asked if option.startswith(ACCEPT))
    # Nobody is asked to lose anything before somebody could look at all of it.
    is_seen = UNSEEN not in types
    wanted = [option for option, kind in _SETTLING.items() if kind in types and (is_seen or kind != WOULD_DISCARD)]
    choices: Sequence[tuple[str, ...]] = (("--commit",), ("--abort",)) if UNDECIDED in types else ((),)
    if NO_TRACE in types:
        choices = (("--commit",),)
    if NotInPlan.code in types:
        # What does not tell an operator's choices is settled by no command for this plan.
        choices = tuple((option,) for option in asked if option not in accepting)
    # Who has the files needs no hand.
    by_hand = ((), accepting) if accepting and not {FILES_GONE, OTHER_FILES}.isdisjoint(types) else (accepting,)
    for choice in choices:
        for accepted in by_hand:
            yield (*choice, *said, *wanted, *accepted)
