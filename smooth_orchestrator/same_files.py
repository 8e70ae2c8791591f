"""Whether a project has the migration files that an interrupted run has to be finished with, and no others."""

from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from typing import Final

from smooth_migrations.protocol import Back, ErrorInfo, Failed, Inspect, Step, TargetReport
from smooth_orchestrator.by_hand import left_to_hand
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.report import OTHER_FILES, UNKNOWN_MOVES
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.silence import call_unless_silent
from smooth_orchestrator.told import Told

__all__ = ["inspected", "moved_by_this_plan", "newer_than_left", "require_files"]

_CODES: Final = frozenset({"missing_file", "changed_file"})
# A long history takes a while to be read.
_LOOK_S: Final = 300.0


async def require_files(run: Run, fleet: Fleet, item: TargetRun, told: Told) -> None:
    """Leave a target in doubt that cannot be run forward with the files there are; the others are committed.

    Only reads.

    Args:
        run: which.
        fleet: its workers.
        item: the target.
        told: what the journal tells of the run.
    """
    if run.takes_back is not None and item.back is None:
        if item.name in run.accepts:
            run.accepted.add(item.name)
            item.back = Back(run.takes_back, ())
            # Whoever goes on need not be told again.
            data = {"tier": str(item.tier), "back": asdict(item.back)}
            await run.journal.append(run.run_id, RecordKind.INTENT, database=item.name, data=data)
            return
        message = f"nobody knows what the run {run.takes_back} moved on {item.name}"
        _leave(run, item, left_to_hand(run, item, ErrorInfo(UNKNOWN_MOVES, message)))
        return
    # Of a database that it did not come to, all that it can have had to do is what it did elsewhere in the project.
    siblings = _siblings(run, item)
    others = [other for other in siblings if other.name in told.held]
    steps = (
        tuple(item.steps)
        or tuple(dict.fromkeys(step for other in others for step in told.held[other.name].steps))
        or _left(siblings)
    )
    moves = item.back or Back(run.run_id, steps, item.received, discards=True)
    # Where nobody tells, the run's files are those that leave a database as it is which the run has moved.
    is_forward = item.back is None and run.finalises is None
    marked = next((each for each in siblings if each.marked_by is not None and is_forward and not moves.steps), None)
    if not moves.steps and marked is None:
        return
    failure = await _other_files(run, fleet, marked or item, replace(moves, discards=True))
    if failure is not None and item.back is not None:
        failure = await _unless_accepted(run, fleet, item, moves, failure)
    if failure is not None:
        _leave(run, item, failure)


async def _unless_accepted(
    run: Run, fleet: Fleet, item: TargetRun, moves: Back, failure: ErrorInfo
) -> ErrorInfo | None:
    """Return why a target cannot be taken back; None where an operator says that it is, and its records do too."""
    if item.name in run.accepts:
        report = await inspected(run, fleet, item, moves)
        if isinstance(report, ErrorInfo):
            return report
        found = [str(step) for step in moves.steps if (str(step) in report.applied) is not step.backwards]
        if not found:
            run.accepted.add(item.name)
            return None
        message = f"it is not as it was before the run: the records still tell of {', '.join(found)}"
        failure = replace(failure, message=message)
    return left_to_hand(run, item, failure)


async def newer_than_left(run: Run, fleet: Fleet, items: Collection[TargetRun]) -> ErrorInfo | None:
    """Return why databases cannot be made new of which nothing tells but the steps left in them; None where they can.

    The operator who says so means the migrations of the run that was interrupted, and no newer ones. Only reads.

    Args:
        run: which.
        fleet: its workers.
        items: the targets.
    """
    for item in items:
        siblings = _siblings(run, item)
        moves = Back(run.run_id, _left(siblings), discards=True)
        if (failure := await _other_files(run, fleet, item, moves)) is not None:
            return failure
    return None


def _siblings(run: Run, item: TargetRun) -> list[TargetRun]:
    """Return the targets of a target's project, itself among them."""
    return [other for other in run.targets if other.target.project == item.target.project]


def _left(items: Collection[TargetRun]) -> tuple[Step, ...]:
    """Return the steps of which databases' own journals tell, in their order, each once."""
    return tuple(dict.fromkeys(step for item in items for step in item.left))


def _leave(run: Run, item: TargetRun, failure: ErrorInfo) -> None:
    item.stage, item.error = Stage.IN_DOUBT, failure
    run.fail(failure, item.name)


def moved_by_this_plan(run: Run, item: TargetRun) -> list[TargetRun]:
    """Return the databases of a target's project that the run has moved by this very plan, as their markers say."""
    return [each for each in _siblings(run, item) if each.marked_by == run.plan.digest]


async def _other_files(run: Run, fleet: Fleet, item: TargetRun, moves: Back) -> ErrorInfo | None:
    """Return why a target cannot be run forward: without the files nothing would be pending, or more with newer ones.

    What is missing, changed or newer, or why nobody can tell; None where all is as it was.
    """
    found: list[str] = []
    is_forward = item.back is None and run.finalises is None
    for back in (moves, None) if is_forward else (moves,):
        report = await inspected(run, fleet, item, back)
        if isinstance(report, ErrorInfo):
            return report
        found += _newer(report, moves) if back is None else _changed(report)
    if not found:
        return None
    hint = "run smooth-orchestrate recover PLAN with the files of the release that was interrupted"
    return ErrorInfo(OTHER_FILES, "; ".join(found), hint=hint)


async def inspected(run: Run, fleet: Fleet, item: TargetRun, back: Back | None) -> TargetReport | ErrorInfo:
    """Return what a target's worker finds there, or why it cannot be looked at. Only reads.

    Args:
        run: which.
        fleet: its workers; a lost one is replaced.
        item: the target.
        back: what is to be taken back there; None to look forward.
    """
    try:
        worker = await fleet.living(run.plan, item.target)
        command = Inspect(
            id=worker.next_id(),
            database=item.name,
            alias=item.target.alias,
            back=back,
            lock_timeout_ms=item.target.lock_timeout_ms,
            statement_timeout_ms=run.plan.statement_timeout_ms,
        )
        answer = await call_unless_silent(worker, command, _LOOK_S)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    if isinstance(answer, TargetReport):
        return answer
    return answer.error if isinstance(answer, Failed) else ErrorInfo("protocol", f"it answered {answer.type}")


def _changed(report: TargetReport) -> Iterator[str]:
    yield from (each.message for each in report.findings if each.code in _CODES)


def _newer(report: TargetReport, moves: Back) -> Iterator[str]:
    of_run = {str(step) for step in moves.steps}
    names = [each.migration for each in report.pending if each.migration not in of_run]
    if names:
        yield f"{', '.join(names)} would run too, and not of this run"
