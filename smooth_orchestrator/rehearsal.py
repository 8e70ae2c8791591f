"""Run the real migrations on every real database, each in a transaction that is always rolled back."""

from dataclasses import asdict, replace
from typing import Any, Final

import anyio

from smooth_migrations.protocol import ErrorInfo, Measured
from smooth_orchestrator.applying import apply_target
from smooth_orchestrator.barrier import refuse_long_locks
from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.lease import LOCKED
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.preflight import not_atomic, only_readied
from smooth_orchestrator.preparation import rehearse_prepare
from smooth_orchestrator.report import DatabaseReport, RunOutcome
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.saga import take_back

__all__ = ["outcome_of", "rehearse_everywhere", "rehearsed", "with_lock_timeout"]

_STEPPING: Final = "a deploy runs each migration in a transaction of its own, which is not rehearsed"


def with_lock_timeout(plan: Plan, lock_timeout_ms: int) -> Plan:
    """Return a plan whose every statement waits so long for a lock. Pure."""
    phases = tuple(
        replace(phase, targets=tuple(replace(target, lock_timeout_ms=lock_timeout_ms) for target in phase.targets))
        for phase in plan.phases
    )
    return replace(plan, phases=phases)


async def rehearse_everywhere(run: Run, fleet: Fleet) -> None:
    """Run each target's pending migrations and roll them back at once, each phase's `parallel` at a time.

    A failure on one target keeps no other from being rehearsed. What no transaction holds, and what comes after it, is
    left alone, and so is a target of which something has to be made ready first.
    """
    failures: dict[str, ErrorInfo] = {}
    async with anyio.create_task_group() as group:
        for phase in run.plan.phases:
            limiter = anyio.Semaphore(phase.parallel)
            for item in run.of(phase):
                if not_atomic(item) != _first(item) and only_readied(item) is None:
                    group.start_soon(_within, limiter, run, fleet, item, failures)
    for database, failure in failures.items():
        run.fail(failure, database)


async def _within(
    limiter: anyio.Semaphore, run: Run, fleet: Fleet, item: TargetRun, failures: dict[str, ErrorInfo]
) -> None:
    async with limiter:
        if run.stopping.is_set():
            return
        if not await run.announce(RecordKind.INTENT, database=item.name, data={"tier": str(item.tier)}):
            return
        # A run of its own, whose failure stops nobody else.
        alone = Run(run.plan, run.run_id, run.journal)
        alone.targets = [item]
        item.stage = Stage.WORKING
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_with, run, alone)
            await apply_target(alone, fleet, item, measures=True)
            await _go_on(alone, fleet, item)
            await take_back(alone, fleet, stays=alone.phases)
            group.cancel_scope.cancel()
    run.further += alone.further
    if alone.cause is not None and alone.cause is not run.cause and item.stepping is None:
        failures[item.name] = alone.cause
    _tell(item)


async def _go_on(alone: Run, fleet: Fleet, item: TargetRun) -> None:
    """Find out what a deploy would do next with what a target holds, or could not hold."""
    if item.stepping is not None and not (item.is_lost or item.undo_error):
        # It would begin again, and commit each migration by itself, which no rehearsal does.
        item.stepping, item.stage, item.error = item.error, Stage.WORKING, None
        return
    item.stepping = None
    # A deploy would end there.
    refuse_long_locks(alone)
    if item.tier is Tier.TWO_PHASE and item.stage is Stage.HELD and not alone.stopping.is_set():
        await rehearse_prepare(alone, fleet, item)
    item.error = item.error or alone.cause


async def _stop_with(run: Run, alone: Run) -> None:
    await run.stopping.wait()
    if run.cause is not None:
        alone.fail(run.cause)


def _tell(item: TargetRun) -> None:
    log = get_logger()
    (log.error if item.error else log.info)(
        EventName.DATABASE_REHEARSED,
        database=item.name,
        outcome=str(item.report().outcome),
        lock_hold_ms=round(item.locked_ms, 1),
        duration_ms=round(item.measured.duration_ms, 1) if item.measured else None,
        error=item.error,
    )


def rehearsed(item: TargetRun) -> DatabaseReport:
    """Return what is told of a target after the rehearsal. Pure."""
    extra = _seen(item.measured) if item.measured else {}
    if not item.has_work:
        extra["rehearsed"] = True
    elif (why := item.stepping) is not None:
        extra |= {"rehearsed": False, "reason": f"{why.migration}: {why.message.splitlines()[0]}; {_STEPPING}"}
    elif (step := only_readied(item)) is not None:
        extra |= {"rehearsed": False, "reason": f"for {step} a deploy makes something ready first; nothing was run"}
    elif (step := not_atomic(item)) is not None:
        extra |= {"rehearsed": False, "reason": f"{step} cannot run in a transaction; nothing from it on was run"}
    else:
        extra["rehearsed"] = item.measured is not None
    return replace(item.report(), extra=extra)


def _first(item: TargetRun) -> str | None:
    pending = item.found.pending if item.found else ()
    return pending[0].migration if pending else None


def _seen(measured: Measured) -> dict[str, Any]:
    return {
        "duration_ms": round(measured.duration_ms, 1),
        "locks": [{**asdict(lock), "held_ms": round(lock.held_ms, 1)} for lock in measured.locks],
        "rewritten": [asdict(table) for table in measured.rewritten],
        "sequences_advanced": list(measured.advanced),
    }


def outcome_of(run: Run) -> RunOutcome:
    """Return how a rehearsal has ended. Pure."""
    if run.in_stage(Stage.IN_DOUBT):
        return RunOutcome.NEEDS_OPERATOR
    if run.cause is None:
        return RunOutcome.NOTHING_TO_DO
    if run.cause.type in LOCKED:
        return RunOutcome.LOCKED
    # What ended it from outside says nothing of the migrations.
    return RunOutcome.ROLLED_BACK if run.cause_database is None else RunOutcome.REFUSED
