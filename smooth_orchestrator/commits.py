"""What commits a target: its worker, for what that holds; and what is written down of it."""

import time
from collections.abc import Sequence

from smooth_migrations.protocol import Commit, ContractHalf, Done, ErrorInfo, Failed
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.silence import call_unless_silent

__all__ = ["commit_held", "note_committed"]


async def commit_held(run: Run, fleet: Fleet, item: TargetRun, *, gives_back: bool = False) -> ErrorInfo | None:
    """Commit what a target holds, or return why that is not known to have happened.

    Args:
        run: which.
        fleet: its workers.
        item: the target.
        gives_back: whether all is committed, and a worker that holds nothing gives the run's lease back.
    """
    worker = fleet.serving(item.target)
    owner = run.run_id if gives_back else ""
    command = Commit(id=worker.next_id(), database=item.name, alias=item.target.alias, run_id=owner)
    try:
        answer = await call_unless_silent(worker, command, run.plan.settle_timeout_ms / 1000)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    match answer:
        case Done():
            item.locked_ms = answer.locked_ms
        case Failed():
            return answer.error
    return None


async def note_committed(run: Run, item: TargetRun, started_s: float) -> None:
    """Note that a target is new.

    Args:
        run: which.
        item: the target.
        started_s: when its commit began, on the monotonic clock.
    """
    item.error = None
    item.stage = Stage.COMMITTED
    held = item.holds
    await run.note(RecordKind.COMMITTED, database=item.name, data=held.to_dict())
    get_logger().info(
        EventName.DATABASE_COMMITTED,
        database=item.name,
        tier=str(item.tier),
        duration_ms=round((time.monotonic() - started_s) * 1000, 1),
        lock_hold_ms=round(item.locked_ms, 1),
    )
    _tell_halves(item, EventName.CONTRACT_QUEUED, item.held_back)
    _tell_halves(item, EventName.CONTRACT_APPLIED, item.contracted)


def _tell_halves(item: TargetRun, event: EventName, halves: Sequence[ContractHalf]) -> None:
    for migration in dict.fromkeys(half.migration for half in halves):
        app, _, name = migration.partition(".")
        operations = [half.description for half in halves if half.migration == migration]
        get_logger().info(event, database=item.name, app=app, migration=name, operations=operations)
