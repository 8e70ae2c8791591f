"""What was written since in databases that a run has committed, and would be lost if they were taken back."""

from collections.abc import Container, Sequence
from dataclasses import replace

import anyio

from smooth_migrations.protocol import Back, ErrorInfo
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.report import UNSEEN, WOULD_DISCARD, RunError
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.same_files import inspected

__all__ = ["keep_what_would_be_lost", "kept", "tell_what_is_lost"]

_LOSS = "would_discard"
# What an inspection finds that could not look.
_BLIND = {"unreachable", "unloadable"}
_DISCARD_HINT = "recover PLAN --discard-data takes it back all the same; what is listed is lost"
_BLIND_HINT = "recover PLAN again, when it can be looked at; with --discard-data it is taken back all the same"


async def keep_what_would_be_lost(run: Run, fleet: Fleet, stays: Container[str]) -> None:
    """Leave what is committed to an operator where taking it back would lose what was written since. Only reads.

    All of it, or the databases would not be at one release any more. A run that was cut off may have been so for days.

    Args:
        run: an interrupted one, that is to be taken back.
        fleet: its workers.
        stays: the names of phases of which that stays which was committed.
    """
    lost, unseen = await _losses(run, fleet, stays)
    reasons = sorted(lost.keys() | unseen.keys())
    for item in _committed(run, stays) if reasons else ():
        message = "; ".join(lost.get(item.name, [f"it stays as it is with {', '.join(reasons)}"]))
        hint = _BLIND_HINT if unseen else _DISCARD_HINT
        kind = UNSEEN if unseen and item.name not in lost else WOULD_DISCARD
        item.error = unseen.get(item.name) or ErrorInfo(kind, message, hint=hint)
        item.stage = Stage.IN_DOUBT
        run.fail(item.error, item.name)


def tell_what_is_lost(run: Run, database: str, lost: Sequence[str]) -> None:
    """Tell what went with the steps that were taken back on a database.

    Args:
        run: whose.
        database: its name.
        lost: in words; none is nothing to be told.
    """
    if lost:
        told = ErrorInfo("discarded", "; ".join(lost))
        get_logger().warning(EventName.LOG_MESSAGE, logger="saga", message=told.message, database=database)
        run.further.append(RunError.of(told, database=database))


def kept(failure: ErrorInfo) -> ErrorInfo:
    """Return a failure with what to do about it, where its undo has found that something would be lost. Pure."""
    return replace(failure, hint=_DISCARD_HINT) if failure.type == WOULD_DISCARD else failure


def _committed(run: Run, stays: Container[str]) -> list[TargetRun]:
    return [item for item in run.in_stage(Stage.COMMITTED) if item.steps and item.phase.name not in stays]


async def _losses(run: Run, fleet: Fleet, stays: Container[str]) -> tuple[dict[str, list[str]], dict[str, ErrorInfo]]:
    """Return by database what would be lost, and why nobody can tell of those that cannot be looked at."""
    lost: dict[str, list[str]] = {}
    unseen: dict[str, ErrorInfo] = {}

    async def look(item: TargetRun) -> None:
        report = await inspected(run, fleet, item, Back(run.run_id, tuple(item.steps), item.received))
        if isinstance(report, ErrorInfo):
            unseen[item.name] = _unseen(item, report.message, report.sqlstate)
            return
        for finding in report.findings:
            if finding.code == _LOSS:
                lost.setdefault(item.name, []).append(finding.message)
            elif finding.code in _BLIND:
                unseen[item.name] = _unseen(item, finding.message, finding.sqlstate)

    async with anyio.create_task_group() as group:
        for item in _committed(run, stays):
            group.start_soon(look, item)
    return lost, unseen


def _unseen(item: TargetRun, why: str, sqlstate: str | None) -> ErrorInfo:
    message = f"nobody can tell what of {item.name} would be lost: {why}"
    return ErrorInfo(UNSEEN, message, sqlstate=sqlstate, hint=_BLIND_HINT)
