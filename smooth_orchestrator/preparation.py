"""The last step before the decision: what every target holds is left to it, prepared where the tier says so."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from smooth_migrations.protocol import Done, ErrorInfo, Failed, Prepare
from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.applying import apply_target, begin_anew
from smooth_orchestrator.barrier import lose, refuse_long_locks, watch_locks
from smooth_orchestrator.config import Atomicity, Tier
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.prepared import gid_of
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.silence import call_unless_silent, silence_s
from smooth_orchestrator.standby import stand_by

__all__ = ["prepare_held", "prepare_target", "rehearse_prepare"]

# What a transaction has done cannot be prepared; or the server has no slot, or no lock-table entry, left for it.
_UNPREPARABLE = frozenset({"0A000", "53200"})
# What a worker's error is called that has found another alias written to, whose transaction nothing prepares.
_NOT_PREPARABLE = "NotPreparable"
# How long a server may take to answer a PREPARE once the run has failed; others wait for what is held beside.
_GRACE_S = 2.0


async def prepare_held(run: Run, fleet: Fleet) -> None:
    """Leave every target at the barrier to the decision that follows; fail the run where what it holds is gone.

    A transaction that its server cannot prepare is run again and held open, where the plan leaves the tier open.
    """
    async with _watching(run, fleet), anyio.create_task_group() as group:
        for item in run.in_stage(Stage.HELD):
            if not item.is_prepared:
                group.start_soon(prepare_target, run, fleet, item)
    refuse_long_locks(run)


async def rehearse_prepare(run: Run, fleet: Fleet, item: TargetRun) -> None:
    """Find out whether a target's transaction can be prepared, which nothing but trying tells.

    Where it cannot, its tier is the one that a deploy takes instead, or the run fails. Where it is, its name is in
    `gid`, and it is to be rolled back.
    """
    async with _watching(run, fleet):
        failure = await _try(run, fleet, item, rehearses=True)
    if failure is not None and not _holds_open_instead(run, item, failure):
        lose(run, item, failure)


@asynccontextmanager
async def _watching(run: Run, fleet: Fleet) -> AsyncIterator[None]:
    """Fail the run, and wait no longer for its servers, once locks are held for longer than `max_lock_hold`."""
    async with anyio.create_task_group() as group:
        group.start_soon(watch_locks, run)
        group.start_soon(_give_up, run, fleet)
        yield
        group.cancel_scope.cancel()


async def _give_up(run: Run, fleet: Fleet) -> None:
    """Wait for no server that does not answer a PREPARE once the run is to end: its locks are waited for by others."""
    await run.stopping.wait()
    await anyio.sleep(_GRACE_S)
    for item in run.in_stage(Stage.HELD):
        if not item.is_prepared:
            fleet.serving(item.target).kill()


async def prepare_target(run: Run, fleet: Fleet, item: TargetRun) -> None:
    """Leave one target to the decision; fail the run where what it holds is gone.

    Ahead of the others where its server has too few connections: a prepared transaction needs none. What a fleet loses
    with a machine before it is known to be prepared is done once more by another one.
    """
    failure = await _try(run, fleet, item)
    if failure is not None and _holds_open_instead(run, item, failure):
        await apply_target(run, fleet, item)
        if item.stage is not Stage.HELD:
            return
        failure = await _try(run, fleet, item)
    # A connection that was cut is a failure of the database's, as it is without a fleet.
    elif failure is not None and fleet.serving(item.target).is_lost and await begin_anew(run, fleet, item, failure):
        async with fleet.lent(item.target, keeps=True):
            await apply_target(run, fleet, item)
            if item.stage is not Stage.HELD:
                return
            failure = await _try(run, fleet, item)
    if failure is not None:
        lose(run, item, failure)
        return
    item.is_prepared = item.gid is not None
    if item.is_prepared:
        await stand_by(run, item)


async def _try(run: Run, fleet: Fleet, item: TargetRun, *, rehearses: bool = False) -> ErrorInfo | None:
    if item.tier is Tier.TWO_PHASE:
        item.gid = gid_of(run, item, rehearses=rehearses)
        if not await run.announce(RecordKind.PREPARING, database=item.name, data={"gid": item.gid}):
            item.gid = None
            return None  # the run has failed, and says why
    worker = fleet.serving(item.target)
    keeper = Owner.here(run.run_id) if item.gid else None
    command = Prepare(id=worker.next_id(), database=item.name, alias=item.target.alias, gid=item.gid, keeper=keeper)
    try:
        answer = await call_unless_silent(worker, command, silence_s(run.plan))
    except WorkerError as error:
        item.is_lost = True
        return ErrorInfo(error.code, error.message, hint=error.hint)
    if not isinstance(answer, Failed):
        item.renewal = answer.renewal if isinstance(answer, Done) else ""
        return None
    if answer.restored:
        item.gid = None
    else:
        item.is_lost = True
    return answer.error


def _holds_open_instead(run: Run, item: TargetRun, failure: ErrorInfo) -> bool:
    """Return whether a transaction that could not be prepared is to be held open, and give its target that tier."""
    if not (_is_unpreparable(failure) and _may_hold_open(run, item)):
        return False
    item.tier = Tier.HELD_OPEN
    get_logger().warning(EventName.TIER_CHANGED, database=item.name, tier=str(item.tier), error=failure)
    return True


def _is_unpreparable(failure: ErrorInfo) -> bool:
    return failure.sqlstate in _UNPREPARABLE or failure.type == _NOT_PREPARABLE


def _may_hold_open(run: Run, item: TargetRun) -> bool:
    is_open = item.tier is Tier.TWO_PHASE and item.target.atomicity is Atomicity.AUTO
    # On another machine it would end with that one, and with whoever forgets its coordinator.
    return is_open and run.plan.minimum_atomicity is not Tier.TWO_PHASE and not run.plan.is_remote
