"""What is stuck on a database: what a run has left there that an operator has to see to, and why. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

from smooth_migrations.protocol import Left
from smooth_orchestrator.report import DatabaseOutcome, Report, RunError
from smooth_orchestrator.runbooks import BY_CAUSE, runbook_of

__all__ = ["stuck_on", "stuck_words"]


def stuck_on(database: str, left: Left | None, reports: Mapping[str, Report]) -> dict[str, Any] | None:
    """Return a report's key `stuck`: what is stuck on a database, by parts; None where nothing is.

    Args:
        database: its name.
        left: what its own journal tells of a call that has not ended.
        reports: of the runs that are still to be settled, newest first, as they last ended.
    """
    asked = {run_id: each for run_id, each in reports.items() if _is_in_doubt(database, each)}
    is_going_back = left is not None and (left.is_being_undone or left.is_undone)
    if left is not None and (is_going_back or left.call_id in asked):
        run_id, state = left.call_id, _state(left)
        steps = [str(step) for step in left.steps]
    elif asked:
        run_id, state, steps = next(iter(asked)), "in_doubt", []
    else:
        return None
    report = asked.get(run_id)
    error = _why(database, report) if report else None
    return {
        "run_id": run_id,
        "state": state,
        "steps": steps,
        "error": error.to_dict() if error else None,
        "runbook": runbook_of(report) if report else None,
    }


def stuck_words(stuck: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what a report's key `stuck` says, a line each."""
    if not stuck:
        return
    steps = f": {', '.join(stuck['steps'])}" if stuck["steps"] else ""
    yield f"stuck: {_WORDS[stuck['state']]}{steps} (run {stuck['run_id']})"
    if (error := stuck["error"]) is not None:
        yield f"why: {(error['message'] or error['type']).splitlines()[0]}"
    if stuck["runbook"]:
        yield f"what to do: {stuck['runbook']}"


_WORDS: Mapping[str, str] = {
    "going_back": "to be taken back",
    "schema_differs": "taken back, and the schema is not as it was before",
    "moved": "moved for good, and not settled",
    "in_doubt": "not settled",
}


def _why(database: str, report: Report) -> RunError | None:
    """Return what keeps a database from being settled; where several errors are told of it, one that has a page."""
    found = [
        each for each in (report.error, *report.errors) if isinstance(each, RunError) and each.database == database
    ]
    found += [each.error for each in report.databases if each.database == database and each.error]
    return next((each for each in found if each.type in BY_CAUSE), found[0] if found else None)


def _state(left: Left) -> str:
    if left.is_undone:
        return "schema_differs"
    return "going_back" if left.is_being_undone else "moved"


def _is_in_doubt(database: str, report: Report) -> bool:
    return any(each.database == database and each.outcome is DatabaseOutcome.IN_DOUBT for each in report.databases)
