"""One target's migrations, run by its worker up to the barrier, and what the worker says meanwhile."""

import time
from dataclasses import replace

import anyio

from smooth_migrations import protocol
from smooth_migrations.protocol import Apply, Cancel, Done, ErrorInfo, Event, Failed
from smooth_orchestrator.config import Atomicity, Tier
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.logs import get_logger, naming
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.prepared import settle_prepared
from smooth_orchestrator.reads import end_session, watch_blockers
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.silence import call_unless_silent, silence_s
from smooth_orchestrator.transport import Worker

__all__ = ["Listener", "apply_target", "begin_anew"]

# How long a cancelled migration has to undo itself before its worker is killed, which undoes it too.
_CANCEL_GRACE_S = 30.0

# How many machines of a fleet, one after the other, may be lost with one target.
_TURNS = 3
# SQLSTATE 55P03, of a lock time-out (PostgreSQL manual, appendix A).
_LOCK_NOT_AVAILABLE = "55P03"


async def apply_target(
    run: Run, fleet: Fleet, item: TargetRun, *, measures: bool = False, is_ahead: bool = False
) -> None:
    """Run a target's pending migrations and hold them. Its stage is HELD or FAILED afterwards, and its error noted.

    Args:
        run: which.
        fleet: its workers.
        item: the target.
        measures: whether it is a rehearsal, in which locks and rewritten tables are noted: then all is held in one
            transaction, whatever the tier, and where a deploy would go on migration by migration it ends.
        is_ahead: whether only that is run which comes before the transaction.
    """
    was_lost = False
    for turn in range(_TURNS):
        async with fleet.lent(item.target, keeps=True) as worker:
            # Others may have failed while it waited.
            if run.stopping.is_set() and not run.decided:
                item.is_lost = was_lost
                return
            item.worker = worker.machine
            with naming(worker=worker.machine):
                answer = await _apply(run, fleet, worker, item, measures=measures, is_ahead=is_ahead)
        if turn == _TURNS - 1 or not isinstance(answer, Failed):
            break
        if not await begin_anew(run, fleet, item, answer.error, measures=measures):
            break  # what is told is how the first one was lost
        was_lost = True
    if was_lost:
        await _hear_of_the_lost(run, item, answer)
    _settle(run, item, answer)


async def begin_anew(run: Run, fleet: Fleet, item: TargetRun, failure: ErrorInfo, *, measures: bool = False) -> bool:
    """Have a target begun anew that was lost with a machine of a fleet; return whether another one can have it.

    The lost one's session on the server has ended by then, and what it has prepared is rolled back.

    Args:
        run: which.
        fleet: its workers.
        item: the target.
        failure: how its machine was lost.
        measures: see `apply_target`, which is to be called next.
    """
    if not await _goes_elsewhere(run, item, measures=measures):
        return False
    if item.gid is not None:
        if isinstance(await settle_prepared(run, fleet, item, commits=False), ErrorInfo):
            return False
        item.gid = None
    fleet.forsake(item.target)
    try:
        await fleet.living(run.plan, item.target)
    except WorkerError:
        return False
    told = {"worker": item.worker, "error": failure, "kept": len(item.permanent)}
    get_logger().warning(EventName.DATABASE_BEGUN_ANEW, database=item.name, **told)
    item.let_go()
    item.stage, item.steps = Stage.WORKING, []
    return True


async def _hear_of_the_lost(run: Run, item: TargetRun, answer: Event) -> None:
    """Note what a machine that was lost had committed unheard: all of it is known, or is still to be looked for."""
    match answer:
        case Done(steps=steps, committed=committed):
            for step in steps[:committed]:
                await _note_step(run, item, step)
        case Failed():
            item.is_lost = True
            if item.turn is None:
                item.epoch = None  # the last one may have had its turn all the same


async def _goes_elsewhere(run: Run, item: TargetRun, *, measures: bool) -> bool:
    """Return whether another machine is to begin anew where one was lost, whose session on the server has ended by now.

    What that machine has committed the database's own journal tells, which is read before anything is done: what was
    broken off is taken back, and what the run knows to be done is not done again.
    """
    if not (run.plan.is_remote and item.is_lost) or run.decided or run.stopping.is_set():
        return False
    is_whole = item.tier is Tier.TWO_PHASE and not item.permanent and not item.has_ahead
    # Its turn must have been heard, so that nobody else can have had one since, and its session, so that it is ended.
    is_known = item.turn is not None and item.backend_pid is not None
    goes_forward = not measures and item.back is None and run.finalises is None
    may_go_on = goes_forward and is_known and item.tier in {Tier.TWO_PHASE, Tier.COMPENSATED}
    return (is_whole or may_go_on) and item.target.asyncpg is not None and await end_session(item) is None


async def _apply(run: Run, fleet: Fleet, worker: Worker, item: TargetRun, *, measures: bool, is_ahead: bool) -> Event:
    plan, target = run.plan, item.target
    command = Apply(
        id=worker.next_id(),
        database=item.name,
        alias=target.alias,
        deploy=plan.name,
        run_id=run.run_id,
        epoch=item.epoch,
        digest=plan.digest,
        compensated=item.tier is Tier.COMPENSATED and not measures,
        together=item.together,
        measures=measures,
        back=item.back,
        finalises=run.finalises,
        expands=target.expand_contract and item.back is None and run.finalises is None,
        may_step=_may_step(plan, item),
        lock_timeout_ms=target.lock_timeout_ms,
        lock_retries=plan.lock_retries,
        statement_timeout_ms=plan.statement_timeout_ms,
        bind_default=target.bind_default,
        other_aliases=target.other_aliases,
        goes_on=run.decided or bool(item.permanent) or (item.has_ahead and not is_ahead),
        is_ahead=is_ahead,
        compares=run.compares,
        replays=run.replays and _is_one_of_several(run, item),
        physical=_physical(run, item),
    )
    listener = Listener(run, item)
    answer: Event
    async with anyio.create_task_group() as group:

        async def cancel_when_stopping() -> None:
            await run.stopping.wait()
            await worker.tell(Cancel(id=worker.next_id(), database=item.name, alias=target.alias, cancels=command.id))
            await anyio.sleep(_CANCEL_GRACE_S)
            worker.kill()

        if not run.decided:
            group.start_soon(cancel_when_stopping)
        group.start_soon(watch_blockers, item, fleet)
        try:
            answer = await call_unless_silent(worker, command, silence_s(plan), listener)
        except WorkerError as error:
            item.is_lost = True
            message = error.message
            at_work = str(listener.at_work) if listener.at_work else None
            answer = Failed(id=command.id, error=ErrorInfo(error.code, message, migration=at_work, hint=error.hint))
        group.cancel_scope.cancel()
    return answer


def _physical(run: Run, item: TargetRun) -> str:
    """Return what the server of a target calls it, where another machine's settings may name another database."""
    if not run.plan.is_remote or item.target.vendor != "postgresql":
        return ""
    looked_at = item.found.physical if item.found else item.identity.physical if item.identity else ""
    return item.physical or looked_at


def _is_one_of_several(run: Run, item: TargetRun) -> bool:
    others = (each for each in run.targets if each is not item and each.target.project == item.target.project)
    return item.has_work and any(each.has_work for each in others)


def _may_step(plan: Plan, item: TargetRun) -> bool:
    is_open = item.target.atomicity is Atomicity.AUTO and plan.minimum_atomicity is Tier.COMPENSATED
    return is_open or item.tier is Tier.COMPENSATED


def _settle(run: Run, item: TargetRun, answer: Event) -> None:
    match answer:
        case Done():
            item.steps = list(answer.steps)
            item.held_back, item.contracted = answer.held_back, answer.contracted
            item.before, item.received, item.measured = answer.before, answer.received, answer.measured
            item.locked_ms, item.locked_at_s = answer.locked_ms, time.monotonic()
            item.stage = Stage.HELD
            run.note_locks(item)
        case Failed() if answer.restored and answer.error.type == "Interrupted" and run.stopping.is_set():
            # Stopped because of somebody else's failure; the way back makes it `rolled_back`.
            item.stage = Stage.WORKING
        case Failed():
            item.stage = Stage.FAILED
            item.unapplied += answer.unapplied
            item.error = _with_blockers(answer.error, item)
            item.undo_error = next(iter(answer.error.causes), None)
            if run.decided:
                return  # it is tried again, and is no failure of the run before that has been given up
            for cause in (item.error, *answer.error.causes):
                run.fail(cause, item.name)


def _with_blockers(error: ErrorInfo, item: TargetRun) -> ErrorInfo:
    return replace(error, blockers=item.blockers) if error.sqlstate == _LOCK_NOT_AVAILABLE else error


class Listener:
    """Turns what a worker says of one command into journal records and log lines."""

    def __init__(self, run: Run, item: TargetRun) -> None:
        self._run = run
        self._item = item
        self.at_work: protocol.Step | None = None

    async def __call__(self, event: Event) -> None:
        """Take note of one event."""
        item, log = self._item, get_logger()
        match event:
            case protocol.MigrationStarted():
                self.at_work = event.step
                pending = len(item.found.pending) if item.found else None
                log.info(EventName.MIGRATION_STARTED, **_keys(item, event.step), pending=pending)
            case protocol.MigrationApplied():
                self.at_work = None
                await self._applied(event)
            case protocol.MigrationFailed() if self._run.stopping.is_set() and event.error.type == "Interrupted":
                pass  # it did not fail: it was stopped because of somebody else's failure
            case protocol.MigrationFailed():
                log.error(
                    EventName.MIGRATION_FAILED,
                    **_keys(item, event.step),
                    duration_ms=round(event.duration_ms, 1),
                    error=event.error,
                )
            case protocol.MigrationUnapplied():
                await self._unapplied(event)
            case protocol.UnapplyFailed():
                log.error(EventName.MIGRATION_UNAPPLY_FAILED, **_keys(item, event.step), error=event.error)
            case protocol.LockRetry():
                log.warning(
                    EventName.LOCK_RETRY,
                    database=item.name,
                    attempt=event.attempt,
                    delay_ms=round(event.delay_ms, 1),
                    error=event.error,
                )
            case _:
                self._session(event)

    def _session(self, event: Event) -> None:
        item, log = self._item, get_logger()
        match event:
            case protocol.Session():
                item.backend_pid, item.backend_start = event.backend_pid, event.backend_start
            case protocol.Leased():
                item.epoch = item.turn = event.epoch
                item.release = event.release
                log.info(EventName.LEASE_ACQUIRED, database=item.name, epoch=event.epoch)
            case protocol.Stepping():
                item.tier, item.together, item.stepping = Tier.COMPENSATED, 1, event.error
                log.warning(EventName.TIER_CHANGED, database=item.name, tier=str(item.tier), error=event.error)

    async def _applied(self, event: protocol.MigrationApplied) -> None:
        step = event.step
        for each in (*event.earlier, *((step,) if event.committed else ())):
            await _note_step(self._run, self._item, each)
        name = EventName.MIGRATION_UNAPPLIED if step.backwards else EventName.MIGRATION_APPLIED
        get_logger().info(name, **_keys(self._item, step), duration_ms=round(event.duration_ms, 1))

    async def _unapplied(self, event: protocol.MigrationUnapplied) -> None:
        step = event.step
        if step in self._item.permanent:
            self._item.permanent.remove(step)
        self._item.unapplied.append(step)
        data = {"app": step.app, "name": step.name}
        await self._run.note(RecordKind.UNSTEP, database=self._item.name, data=data)
        # What a rollback had taken back is applied again.
        name = EventName.MIGRATION_APPLIED if step.backwards else EventName.MIGRATION_UNAPPLIED
        get_logger().info(name, **_keys(self._item, step), duration_ms=round(event.duration_ms, 1))


async def _note_step(run: Run, item: TargetRun, step: protocol.Step) -> None:
    """Write down that a step is committed, unless that is known."""
    if step not in item.permanent:
        item.permanent.append(step)
        data = {"app": step.app, "name": step.name, "backwards": step.backwards, "fake": step.fake}
        await run.announce(RecordKind.STEP, database=item.name, data=data)


def _keys(item: TargetRun, step: protocol.Step) -> dict[str, str]:
    return {
        "database": item.name,
        "project": item.target.project,
        "alias": item.target.alias,
        "phase": item.phase.name,
        "app": step.app,
        "migration": step.name,
        "direction": "backwards" if step.backwards else "forwards",
    }
