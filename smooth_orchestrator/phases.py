"""The forward half of a run: phase by phase, target by target, up to the barrier."""

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict

import anyio

from smooth_orchestrator.applying import apply_target
from smooth_orchestrator.barrier import watching_held
from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.gates import pass_gate
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Phase
from smooth_orchestrator.preparation import prepare_target
from smooth_orchestrator.run import Run, Stage, TargetRun

__all__ = ["run_ahead", "run_phase"]


async def run_ahead(run: Run, fleet: Fleet, items: Sequence[TargetRun]) -> None:
    """Run what needs no transaction, phase by phase; only when all of it is done is the first lock taken.

    It keeps nobody waiting, and may take long. A failure is noted in the run; nothing is raised for it.
    """
    async with watching_held(run, fleet):
        for phase in run.plan.phases:
            limiter = anyio.Semaphore(phase.parallel)
            async with anyio.create_task_group() as group:
                for item in items:
                    if item.phase is phase and item.has_ahead:
                        group.start_soon(_ahead_within, limiter, run, fleet, item)


async def _ahead_within(limiter: anyio.Semaphore, run: Run, fleet: Fleet, item: TargetRun) -> None:
    async with limiter, fleet.place_on(item.target):
        if not run.stopping.is_set() and await _intend(run, item):
            await apply_target(run, fleet, item, is_ahead=True)


async def _intend(run: Run, item: TargetRun) -> bool:
    """Write down that a target begins, unless it has begun; return whether it may."""
    if item.stage is Stage.UNTOUCHED:
        intent = {"tier": str(item.tier), "options": item.target.options}
        if item.back:
            intent["back"] = asdict(item.back)
        if not await run.announce(RecordKind.INTENT, database=item.name, data=intent):
            return False
    item.stage, item.steps = Stage.WORKING, []
    return True


async def run_phase(run: Run, fleet: Fleet, phase: Phase) -> None:
    """Bring every target of a phase that has work to the barrier, then run its gate.

    Compensated targets go first: their steps take long and expose nothing but additions, while locks are held from
    the first held transaction on. A failure is noted in the run; nothing is raised for it.
    """
    items = run.of(phase)
    log = get_logger()
    log.info(EventName.PHASE_STARTED, phase=phase.name, databases=[item.name for item in items])
    started_s = time.monotonic()
    await run.announce(RecordKind.PHASE_STARTED, data={"phase": phase.name})
    async with watching_held(run, fleet):
        for first in (True, False):
            limiter = anyio.Semaphore(phase.parallel)
            async with anyio.create_task_group() as group:
                for item in items:
                    if (item.tier is Tier.COMPENSATED) is first:
                        group.start_soon(_within, limiter, run, fleet, item)
        if phase.gate and not run.stopping.is_set():
            failure = await pass_gate(run, phase)
            if failure and not run.stopping.is_set():
                run.fail(failure)
    log.info(
        EventName.PHASE_FINISHED,
        phase=phase.name,
        outcome="rolled_back" if run.stopping.is_set() else "committed",
        duration_ms=round((time.monotonic() - started_s) * 1000, 1),
    )


async def _within(limiter: anyio.Semaphore, run: Run, fleet: Fleet, item: TargetRun) -> None:
    # What is prepared at once must not wait behind the next target of its worker.
    worker: AbstractAsyncContextManager[object] = nullcontext()
    if item.prepares_early:
        worker = fleet.lent(item.target, keeps=True)
    async with limiter, fleet.place_on(item.target), worker:
        if run.stopping.is_set() or not await _intend(run, item):
            return
        started_s = time.monotonic()
        await apply_target(run, fleet, item)
        if item.stage is Stage.HELD:
            data = item.holds.to_dict()
            await run.announce(RecordKind.HELD, database=item.name, data=data)
            if item.prepares_early and not run.stopping.is_set():
                await prepare_target(run, fleet, item)
        if item.stage is Stage.HELD:
            get_logger().info(
                EventName.DATABASE_PREPARED,
                database=item.name,
                worker=item.worker,
                tier=str(item.tier),
                duration_ms=round((time.monotonic() - started_s) * 1000, 1),
                lock_hold_ms=round(item.lock_hold_ms, 1),
            )
