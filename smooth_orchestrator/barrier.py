"""What must be true of the transactions held at the barrier: each is still there, and none has locked for too long."""

import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.config import Tier
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.transport import Worker, WorkerLost

__all__ = ["left_to_lock_s", "lose", "refuse_long_locks", "watch_locks", "watching_held"]

_LOOK_S = 0.1


@asynccontextmanager
async def watching_held(run: Run, fleet: Fleet) -> AsyncIterator[None]:
    """Stop the run as soon as a worker that holds is lost, or locks are held for longer than `max_lock_hold`."""
    async with anyio.create_task_group() as group:
        group.start_soon(watch_locks, run)

        def hear(worker: Worker, loss: WorkerLost) -> None:
            _take_loss(run, fleet, worker, loss)

        with fleet.hearing_losses(hear):
            yield
        group.cancel_scope.cancel()


def _take_loss(run: Run, fleet: Fleet, worker: Worker, loss: WorkerLost) -> None:
    served = [item for item in run.targets if fleet.is_held(item.target, worker)]
    if run.in_stage(Stage.WORKING, among=served):
        return  # the target at work is the first cause, and says so itself
    # What is prepared at once is about to be, and says so itself.
    held = [item for item in served if not item.is_prepared and not item.prepares_early]
    for item in run.in_stage(Stage.HELD, among=held):
        lose(run, item, ErrorInfo(loss.code, loss.message, hint=loss.hint))


def lose(run: Run, item: TargetRun, error: ErrorInfo) -> None:
    """Note that what a target held is gone."""
    item.error, item.stage = error, Stage.FAILED
    run.fail(error, item.name)


async def watch_locks(run: Run) -> None:
    """Fail the run as soon as locks are held for longer than `max_lock_hold`; until then, or until cancelled."""
    refuse_long_locks(run)
    while not run.stopping.is_set():
        # Of a hundred thousand databases each would take longer to be looked at than there is time between two looks.
        if time.monotonic() > run.locks_until_s:
            refuse_long_locks(run)
        await anyio.sleep(_LOOK_S)


def left_to_lock_s(run: Run) -> float:
    """Return for how long locks that are held may go on to be held, in seconds."""
    held = [item.lock_hold_ms for item in run.in_stage(Stage.HELD) if item.tier is not Tier.COMPENSATED]
    return max(0.0, (run.plan.max_lock_hold_ms - max(held, default=0.0)) / 1000)


def refuse_long_locks(run: Run) -> None:
    """Fail the run where strong locks were held for longer than `max_lock_hold`."""
    run.locks_until_s = math.inf
    for item in run.in_stage(Stage.HELD):
        run.note_locks(item)
        if (
            item.tier is not Tier.COMPENSATED
            and item.lock_hold_ms > run.plan.max_lock_hold_ms
            and not run.stopping.is_set()
        ):
            message = (
                f"strong locks were held for {item.lock_hold_ms / 1000:.1f} s, and max_lock_hold is "
                f"{run.plan.max_lock_hold_ms / 1000:g} s"
            )
            run.fail(ErrorInfo("max_lock_hold", message, hint="split the change, or raise max_lock_hold"), item.name)
