"""The way back of a run, newest phase first: held transactions by ROLLBACK, committed steps by their reverse."""

from collections.abc import Callable, Container, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Final

import anyio

from smooth_migrations.protocol import (
    Command,
    Commit,
    Done,
    ErrorInfo,
    Failed,
    Prepare,
    Rollback,
    Standing,
    Undo,
)
from smooth_migrations.protocol.failures import NOT_HELD, OWN_UNDO_FAILED
from smooth_orchestrator.applying import Listener
from smooth_orchestrator.by_hand import with_a_hand
from smooth_orchestrator.config import Tier
from smooth_orchestrator.errors import SmoothError, WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.losing import kept, tell_what_is_lost
from smooth_orchestrator.prepared import Fate, settle_prepared
from smooth_orchestrator.reads import end_session
from smooth_orchestrator.report import IN_DOUBT
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.silence import call_unless_silent, silence_s
from smooth_orchestrator.standing import ask_standing

__all__ = ["reverse", "take_back"]

# A ROLLBACK takes no time; a server or a worker that does not do it in this one is not waited for.
_ROLLBACK_S = 30.0
_PAUSE_S = 0.2
# Whose servers take DDL back with a transaction.
_CAN_HOLD: Final = {"postgresql", "sqlite"}


async def take_back(run: Run, fleet: Fleet, *, stays: Container[str] = ()) -> None:
    """Take back what the run did, in reverse order of phases; every target's stage says afterwards how that went.

    What several databases have committed is taken back on all of them, or on none, where their servers can take back
    DDL.

    Args:
        run: whose failure is noted.
        fleet: its workers; a dead one is replaced where committed steps must be reversed.
        stays: the names of phases of which that stays which was committed.
    """
    committed = [item for item in run.in_stage(Stage.COMMITTED) if item.steps and item.phase.name not in stays]
    together = committed if len(committed) > 1 else []
    for phase in reversed(run.plan.phases):
        touched = {Stage.HELD, Stage.FAILED, Stage.WORKING} | ({Stage.COMMITTED} if phase.name not in stays else set())
        async with anyio.create_task_group() as group:
            for item in run.in_stage(*touched, among=run.of(phase)):
                if item not in together:
                    group.start_soon(_take_back_target, run, fleet, item)
    if together:
        await _take_back_together(run, fleet, together)


async def _take_back_together(run: Run, fleet: Fleet, items: Sequence[TargetRun]) -> None:
    """Hold the way back on every database that can, then take it on the others, and commit what is held at last.

    Steps that do not go back within a transaction, such as code that begins its own, do so among the others.
    """
    failed: dict[str, ErrorInfo] = {}
    last = [item for item in items if item.target.vendor not in _CAN_HOLD]
    held = [item for item in items if item not in last]
    await _hold_together(run, fleet, held, failed)
    last += [item for item in held if item.is_stepwise]
    await _each(_hold_back, run, fleet, last, failed)
    if failed:
        await _each(_let_go, run, fleet, [item for item in items if item.is_undone], failed)
    await _each(_end_together, run, fleet, items, failed)


async def _hold_together(run: Run, fleet: Fleet, items: Sequence[TargetRun], failed: dict[str, ErrorInfo]) -> None:
    """Hold the way back on all of them at once: what was lost while others came to theirs is held once more."""
    lost: dict[str, ErrorInfo] = {}
    for _attempt in range(2):
        for phase in reversed(run.plan.phases):
            await _each(_hold_back, run, fleet, [item for item in items if item.phase is phase], failed)
        lost = {}
        await _each(_find_lost, run, fleet, [item for item in items if item.is_undone], lost)
        items = [item for item in items if item.name in lost]
        await _each(_let_go, run, fleet, items, lost)
    failed |= lost


async def _each(
    work: Callable[[Run, Fleet, TargetRun, dict[str, ErrorInfo]], Coroutine[Any, Any, None]],
    run: Run,
    fleet: Fleet,
    items: Sequence[TargetRun],
    failed: dict[str, ErrorInfo],
) -> None:
    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(work, run, fleet, item, failed)


async def _hold_back(run: Run, fleet: Fleet, item: TargetRun, failed: dict[str, ErrorInfo]) -> None:
    if failed:
        return
    was_stepwise = item.is_stepwise
    try:
        failure = await reverse(run, fleet, item, holds=not was_stepwise)
    except SmoothError as error:
        failure = ErrorInfo(error.code, error.message, hint=error.hint)
    if item.is_stepwise and not was_stepwise:
        return
    if failure is not None:
        failed[item.name] = failure
    elif not item.is_undone:
        await _settle_back(run, item, None)


async def _find_lost(run: Run, fleet: Fleet, item: TargetRun, lost: dict[str, ErrorInfo]) -> None:
    """Note a way back that is not held any more: it goes with its session, or with a worker that has died elsewhere."""
    command = Prepare(id=fleet.serving(item.target).next_id(), database=item.name, alias=item.target.alias)
    try:
        failure = await _ask(run, fleet, item, command)
    except WorkerError as error:
        failure = ErrorInfo(error.code, error.message, hint=error.hint)
    if failure is not None:
        lost[item.name] = failure


async def _let_go(run: Run, fleet: Fleet, item: TargetRun, failed: dict[str, ErrorInfo]) -> None:
    """Roll the way back back; with a worker that is lost, its transaction is too."""
    del failed
    command = Rollback(id=fleet.serving(item.target).next_id(), database=item.name, alias=item.target.alias)
    with suppress(WorkerError):
        await _ask(run, fleet, item, command)
    item.is_undone = False


async def _end_together(run: Run, fleet: Fleet, item: TargetRun, failed: dict[str, ErrorInfo]) -> None:
    if item.is_undone:
        await _settle_back(run, item, await _commit_back(run, fleet, item))
    elif item.stage is Stage.COMMITTED:
        cause = next(iter(failed.values()))
        message = f"it stays as it is with {', '.join(sorted(failed))}"
        await _settle_back(run, item, failed.get(item.name) or ErrorInfo(cause.type, message, hint=cause.hint))


async def _commit_back(run: Run, fleet: Fleet, item: TargetRun) -> ErrorInfo | None:
    """Commit what was taken back; by now it is so on others, and is brought about once more where nobody knows."""
    command = Commit(id=fleet.serving(item.target).next_id(), database=item.name, alias=item.target.alias)
    item.is_undone = False
    try:
        failure = await _ask(run, fleet, item, command)
    except WorkerError:
        await fleet.living(run.plan, item.target)
        failure = ErrorInfo("worker_lost", "a worker was lost while it committed what was taken back")
    if failure is None:
        _finish(run, item)
        return None
    return await reverse(run, fleet, item)


def _finish(run: Run, item: TargetRun) -> None:
    item.permanent.clear()
    tell_what_is_lost(run, item.name, item.lost)


async def _take_back_target(run: Run, fleet: Fleet, item: TargetRun) -> None:
    failed_itself = item.stage is Stage.FAILED
    failure: ErrorInfo | None = None
    try:
        if item.stage is not Stage.COMMITTED:
            failure = await _roll_back(run, fleet, item)
        was_committed = item.stage is Stage.COMMITTED
        # A lost worker may have committed more than it could tell; the database's own journal knows.
        failure = failure or await _hear_late(run, fleet, item)
        # Without a turn on its database it has done nothing.
        is_unsure = item.is_lost and item.epoch is not None and (item.tier is Tier.COMPENSATED or item.leaves_steps)
        if failure is None and (item.permanent or (was_committed and item.steps) or is_unsure):
            failure = await reverse(run, fleet, item)
        elif failure is None:
            failure = item.undo_error
    except SmoothError as error:
        failure = ErrorInfo(error.code, error.message, hint=error.hint)
    await _settle_back(run, item, failure, failed_itself=failed_itself)


async def _hear_late(run: Run, fleet: Fleet, item: TargetRun) -> ErrorInfo | None:
    """Learn from its database what a lost machine of a fleet has committed there after it was last heard."""
    is_unheard = item.has_ahead or (item.tier is Tier.COMPENSATED and item.epoch is None)
    if not (run.plan.is_remote and item.is_lost and is_unheard) or item.stage is Stage.COMMITTED:
        return None
    standing = await ask_standing(run, fleet, item)
    if isinstance(standing, ErrorInfo):
        return standing
    if standing.unfinished == run.run_id:
        item.leaves_steps, item.epoch = True, standing.epoch
    return None


async def _settle_back(run: Run, item: TargetRun, failure: ErrorInfo | None, *, failed_itself: bool = False) -> None:
    """Note how the way back went on a target."""
    if failure is not None:
        item.stage = Stage.IN_DOUBT
        item.error = item.error or failure
        run.fail(failure, item.name)
        return
    item.unapplied = list(reversed(item.steps)) or item.unapplied
    item.stage = Stage.FAILED if failed_itself else Stage.ROLLED_BACK
    await run.note(RecordKind.ROLLED_BACK, database=item.name)
    get_logger().info(EventName.DATABASE_ROLLED_BACK, database=item.name, tier=str(item.tier))


async def _roll_back(run: Run, fleet: Fleet, item: TargetRun) -> ErrorInfo | None:
    # What was committed ahead of a prepared transaction can be taken back when that is gone, as can the lease.
    # Until they are, nobody else is to have a turn.
    gives_back = item.gid is not None and not item.has_ahead
    if item.gid is not None and (failure := await _roll_back_prepared(run, fleet, item)) is not None:
        return failure
    return await _roll_back_held(run, fleet, item, gives_back=gives_back)


async def _roll_back_held(run: Run, fleet: Fleet, item: TargetRun, *, gives_back: bool = False) -> ErrorInfo | None:
    worker = fleet.serving(item.target)
    owner = run.run_id if gives_back else ""
    command = Rollback(id=worker.next_id(), database=item.name, alias=item.target.alias, run_id=owner)
    try:
        failure = await _ask(run, fleet, item, command)
        if failure is None or item.tier is Tier.COMPENSATED or failure.type == OWN_UNDO_FAILED:
            return failure
        get_logger().warning(EventName.LOG_MESSAGE, logger="saga", message=failure.message, database=item.name)
    except WorkerError:
        pass
    # Its transaction died with its worker or its connection; the server may not have noticed yet.
    failure = await end_session(item)
    # Nobody can commit it any more; a server that does not answer rolls it back when it does.
    return failure if item.tier is Tier.COMPENSATED else None


async def _roll_back_prepared(run: Run, fleet: Fleet, item: TargetRun) -> ErrorInfo | None:
    with anyio.move_on_after(run.plan.settle_timeout_ms / 1000):
        while True:
            # A PREPARE without an answer may still be on its way: its session must have ended before.
            if not item.is_lost or await end_session(item) is None:
                fate = await settle_prepared(run, fleet, item, commits=False)
                if fate is Fate.ENDED:
                    item.gid = None
                    return None
                # Whoever looks ends the sessions that nobody could be asked to end before.
                standing = await ask_standing(run, fleet, item) if fate is Fate.GONE else None
                if isinstance(standing, ErrorInfo):
                    return standing
                if standing is not None and item.gid not in standing.gids:
                    item.gid = None
                    return _note_late_commit(run, item, standing)
            await anyio.sleep(_PAUSE_S)
    return ErrorInfo(
        IN_DOUBT,
        f"the prepared transaction {item.gid} could not be rolled back",
        hint="smooth-orchestrate recover PLAN, once its server answers",
    )


def _note_late_commit(run: Run, item: TargetRun, standing: Standing) -> ErrorInfo | None:
    """Note that what is gone was committed, where a coordinator that had been given up has woken up to do so."""
    if standing.marker(run.run_id) is not None:
        if not item.steps:
            return ErrorInfo(IN_DOUBT, f"{item.name} was committed meanwhile, and nobody knows what was moved there")
        item.stage = Stage.COMMITTED
    return None


async def reverse(run: Run, fleet: Fleet, item: TargetRun, *, holds: bool = False) -> ErrorInfo | None:
    """Reverse committed steps; in a new worker where the old one is gone.

    Args:
        run: which.
        fleet: its workers.
        item: the target.
        holds: whether that is not to be committed yet, where the server can hold it. Where the steps do not go back
            within a transaction they are left, and noted as such.

    Raises:
        WorkerError: no worker can be started.
    """
    # Once it is committed as a whole, that is more than what ran ahead.
    steps = tuple(item.steps if item.stage is Stage.COMMITTED else item.permanent or item.steps)
    for _attempt in range(2):
        worker = fleet.serving(item.target)
        command = Undo(
            id=worker.next_id(),
            database=item.name,
            alias=item.target.alias,
            deploy=run.plan.name,
            run_id=run.run_id,
            steps=steps,
            epoch=item.epoch or 0,
            before=item.before,
            received=item.received,
            lock_timeout_ms=item.target.lock_timeout_ms,
            lock_retries=run.plan.lock_retries,
            statement_timeout_ms=run.plan.statement_timeout_ms,
            bind_default=item.target.bind_default,
            other_aliases=item.target.other_aliases,
            compares=run.compares,
            discards=run.discards,
            holds=holds,
            accepts=item.name in run.accepts,
            stepwise=item.is_stepwise,
        )
        try:
            failure = await _ask(run, fleet, item, command)
        except WorkerError:
            await fleet.living(run.plan, item.target)
            continue
        if failure is None or failure.type != NOT_HELD:
            return failure
        item.is_stepwise = True
        get_logger().warning(EventName.LOG_MESSAGE, logger="saga", message=failure.message, database=item.name)
        return failure if holds else await reverse(run, fleet, item)
    return ErrorInfo("worker_lost", "two workers were lost while the steps were reversed")


async def _ask(run: Run, fleet: Fleet, item: TargetRun, command: Command) -> ErrorInfo | None:
    limit_s = silence_s(run.plan) if item.tier is Tier.COMPENSATED or isinstance(command, Undo) else _ROLLBACK_S
    answer = await call_unless_silent(fleet.serving(item.target), command, limit_s, Listener(run, item))
    match answer:
        case Done() if isinstance(command, Undo):
            item.is_undone, item.lost = answer.is_held, answer.lost
            if answer.is_accepted:
                run.accepted.add(item.name)
            if not item.is_undone:
                _finish(run, item)
            return None
        case Failed():
            return with_a_hand(run, item, kept(answer.error))
    return None
