"""How a run ended, in a screen: which of many databases are shown, and what to do next."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from smooth_orchestrator.errors import RunIdTaken
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome

__all__ = ["Step", "counted", "few", "next_step", "since_then", "telling"]

_PROGRAM: Final = "smooth-orchestrate"
_TELLING: Final = (DatabaseOutcome.IN_DOUBT, DatabaseOutcome.FAILED)
_NAMES_SHOWN: Final = 5
_RUN_ID: Final = "--run-id"
_DID: Final = {"finalise": "finalised", "rollback": "taken back"}


@dataclass(frozen=True, slots=True)
class Step:
    """What a person does next.

    Args:
        when: the occasion, in words.
        command: to be pasted.
    """

    when: str
    command: str


def next_step(report: Report, plan: str, words: Sequence[str] = ()) -> Step | None:
    """Return what comes next after a run; None where nothing does, or the report itself says it. Pure.

    Args:
        report: the run's.
        plan: the plan file, as it was given.
        words: the command line that has made the report, after the command's name; where that is to be tried again it
            is with all of them.
    """
    if report.since or (found := _next(report)) is None:
        return None
    when, command = found
    if command != report.command:
        words = (plan,)
    elif not words:
        words = (plan, *(("--run", report.takes_back) if command == "rollback" and report.takes_back else ()))
    elif _is_taken(report):
        words = [*_without_run_id(words)]
    return Step(when, shlex.join((_PROGRAM, command, *words)))


def since_then(report: Report) -> Iterator[str]:
    """Yield what later runs have done about one, in a sentence each. Pure."""
    for command, run_id in report.since:
        yield f"This run was {_DID[command]} since, by the run {run_id}."


def _is_taken(report: Report) -> bool:
    return isinstance(report.error, RunError) and report.error.type == RunIdTaken.code


def _without_run_id(words: Sequence[str]) -> Iterator[str]:
    for before, word in pairwise(("", *words)):
        if before != _RUN_ID and word.partition("=")[0] != _RUN_ID:
            yield word


def _next(report: Report) -> tuple[str, str] | None:
    error, found = report.error, None
    match report.outcome:
        case RunOutcome.COMMITTED if any(each.contract_pending for each in report.databases):
            found = "When the release before is gone", "finalise"
        case RunOutcome.ROLLED_BACK if isinstance(error, RunError) and error.blockers:
            found = "When the lock is free", report.command
        case RunOutcome.ROLLED_BACK if isinstance(error, RunError) and error.migration:
            # A rehearsal is one of a deploy.
            is_deploy = report.command in {"deploy", "rehearse"}
            tried = "When that is mended, try it, which changes nothing", "rehearse"
            found = tried if is_deploy else ("When that is mended", report.command)
        case RunOutcome.ROLLED_BACK:
            found = "To begin again", report.command
        case RunOutcome.REFUSED if _is_taken(report):
            found = "With a run id of its own", report.command
        case RunOutcome.REFUSED:
            found = "When that is mended", "check" if report.command == "deploy" else report.command
        case RunOutcome.LOCKED | RunOutcome.NOT_DUE:
            found = "To see how it stands", "status"
    return found


def telling(databases: Iterable[DatabaseReport]) -> list[DatabaseReport]:
    """Return those of which one by one is to be told: in doubt first, then failed. Pure."""
    shown = [each for each in databases if each.outcome in _TELLING]
    return sorted(shown, key=lambda each: _TELLING.index(each.outcome))


def counted(databases: Iterable[DatabaseReport]) -> str:
    """Return how many have come to which outcome, in words. Pure."""
    counts = Counter(each.outcome for each in databases)
    ordered = (*_TELLING, *(outcome for outcome in DatabaseOutcome if outcome not in _TELLING))
    return ", ".join(f"{counts[outcome]} {outcome.replace('_', ' ')}" for outcome in ordered if counts[outcome])


def few(names: Sequence[str]) -> str:
    """Return names in words, the first alone of many. Pure."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
