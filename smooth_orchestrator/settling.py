"""The commands with which an operator settles what a run has left, as its report names them. Pure."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smooth_orchestrator.errors import NotInPlan
from smooth_orchestrator.report import (
    ACCEPT,
    HALTED,
    NO_TRACE,
    SCHEMA_DIFFERS,
    UNDECIDED,
    WOULD_DISCARD,
    Report,
    RunError,
    RunOutcome,
)

__all__ = ["told_how_to_settle"]

# Which option of `recover` an error of this type asks an operator for.
_SETTLING: Final = {"--discard-data": WOULD_DISCARD, "--no-fingerprint": SCHEMA_DIFFERS}


def told_how_to_settle(report: Report, plan: Path, said: Sequence[str] = ()) -> Report:
    """Return a report that names the command, for this very plan, with which an operator settles what is in doubt.

    A run that has halted leaves nothing in doubt, and nothing for `recover`: it goes on, or back.

    Args:
        report: any.
        plan: its file.
        said: options of `recover` that an operator has given; the command repeats them.
    """
    if report.outcome not in {RunOutcome.NEEDS_OPERATOR, RunOutcome.HALTED}:
        return report
    file = shlex.quote(str(plan))
    command = f"smooth-orchestrate recover {file}"
    # Each database tells its own, whatever was the first cause.
    errors = (report.error, *report.errors, *(each.error for each in report.databases))
    if HALTED in {error.type for error in errors if isinstance(error, RunError)}:
        back = f"smooth-orchestrate rollback {file} --run {shlex.quote(report.run_id)}"
        return replace(report, settle_with=(f"smooth-orchestrate deploy {file}", back))
    accepting = [option for option in report.settle_with if option.startswith(ACCEPT)]
    types = {error.type for error in errors if isinstance(error, RunError)}
    wanted = [option for option, wanting in _SETTLING.items() if wanting in types]
    options = dict.fromkeys([*said, *wanted, *accepting])
    choices: tuple[str | None, ...] = ("--commit", "--abort") if UNDECIDED in types else (None,)
    if NO_TRACE in types:
        choices = ("--commit",)
    if NotInPlan.code in types:
        # What does not tell an operator's choices is settled by no command for this plan.
        choices = tuple(option for option in report.settle_with if option not in accepting)
    return replace(report, settle_with=tuple(" ".join(filter(None, (command, choice, *options))) for choice in choices))
