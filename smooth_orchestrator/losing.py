"""What was written since in databases that a run has committed, and would be lost if they were taken back."""

from collections.abc import Container

import anyio

from smooth_migrations.protocol import Back, ErrorInfo
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.report import WOULD_DISCARD, RunError
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.same_files import inspected

__all__ = ["keep_what_would_be_lost", "tell_what_is_lost"]

_LOSS = "would_discard"


async def keep_what_would_be_lost(run: Run, fleet: Fleet, stays: Container[str]) -> None:
    """Leave what is committed to an operator where taking it back would lose what was written since. Only reads.

    All of it, or the databases would not be at one release any more. A run that was cut off may have been so for days.

    Args:
        run: an interrupted one, that is to be taken back.
        fleet: its workers.
        stays: the names of phases of which that stays which was committed.
    """
    lost = await _losses(run, fleet, stays)
    if not lost:
        return
    for item in _committed(run, stays):
        found = lost.get(item.name)
        message = "; ".join(found) if found else f"it stays as it is with {', '.join(sorted(lost))}"
        hint = "recover PLAN --discard-data takes it back all the same; what is listed is lost"
        item.stage, item.error = Stage.IN_DOUBT, ErrorInfo(WOULD_DISCARD, message, hint=hint)
        run.fail(item.error, item.name)


async def tell_what_is_lost(run: Run, fleet: Fleet) -> None:
    """Tell what is lost with the phases that have committed before a later one has failed. Only reads."""
    for name, found in sorted((await _losses(run, fleet, ())).items()):
        lost = ErrorInfo("discarded", "; ".join(found))
        get_logger().warning(EventName.LOG_MESSAGE, logger="saga", message=lost.message, database=name)
        run.further.append(RunError.of(lost, database=name))


def _committed(run: Run, stays: Container[str]) -> list[TargetRun]:
    return [item for item in run.in_stage(Stage.COMMITTED) if item.steps and item.phase.name not in stays]


async def _losses(run: Run, fleet: Fleet, stays: Container[str]) -> dict[str, list[str]]:
    """Return by database what would be lost; a database that cannot be looked at cannot be taken back either."""
    lost: dict[str, list[str]] = {}

    async def look(item: TargetRun) -> None:
        report = await inspected(run, fleet, item, Back(run.run_id, tuple(item.steps), item.received))
        findings = () if isinstance(report, ErrorInfo) else report.findings
        if found := [finding.message for finding in findings if finding.code == _LOSS]:
            lost[item.name] = found

    async with anyio.create_task_group() as group:
        for item in _committed(run, stays):
            group.start_soon(look, item)
    return lost
