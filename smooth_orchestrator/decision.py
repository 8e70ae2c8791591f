"""The one row that makes a deploy: written before the first commit, obeyed by everything after it."""

import time
from collections.abc import Sequence
from dataclasses import replace

import anyio

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.applying import apply_target
from smooth_orchestrator.commits import commit_held, note_committed
from smooth_orchestrator.errors import JournalError, WorkerError
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Fenced, RecordKind
from smooth_orchestrator.lease import LOST
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.prepared import Fate, settle_prepared
from smooth_orchestrator.reads import end_session
from smooth_orchestrator.report import WOULD_DISCARD
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.standby import leave
from smooth_orchestrator.standing import ask_standing

__all__ = ["commit_everywhere", "decide", "leave_in_doubt", "write_decision_down"]

_PAUSE_S = 0.2
# How long what is committed waits for its worker while others are being committed.
_WINDOW_S = 1.0
# What errors are called that do not pass by themselves: others have been at work since, or have written.
_LASTING = LOST | {WOULD_DISCARD}
_DISCARD_HINT = "smooth-orchestrate recover PLAN --discard-data takes it back all the same; what is listed is lost"


async def decide(run: Run, decision: Decision, *, scope: str) -> None:
    """Write the decision, durably, before anything obeys it.

    Raises:
        JournalError: it could not be written; then nothing is decided.
    """
    started_s = time.monotonic()
    await run.journal.append(run.run_id, RecordKind.DECISION, data={"decision": str(decision), "scope": scope})
    _tell(run, decision, scope, started_s)


async def write_decision_down(run: Run, decision: Decision, *, scope: str) -> None:
    """Write down a decision that has been made elsewhere; a journal that fails cannot unmake it."""
    started_s = time.monotonic()
    await run.note(RecordKind.DECISION, data={"decision": str(decision), "scope": scope})
    _tell(run, decision, scope, started_s)


def _tell(run: Run, decision: Decision, scope: str, started_s: float) -> None:
    duration_ms = round((time.monotonic() - started_s) * 1000, 1)
    get_logger().info(
        EventName.DEPLOY_DECIDED, decision=str(decision), duration_ms=duration_ms, scope=scope, error=run.cause
    )


def leave_in_doubt(run: Run, failure: ErrorInfo) -> None:
    """Leave what is held to whoever settles the run, where nobody knows whether the decision was written. Idempotent.

    Args:
        run: which.
        failure: why.
    """
    for item in run.in_stage(Stage.HELD):
        item.stage, item.error = Stage.IN_DOUBT, failure
        leave(item)


async def commit_everywhere(run: Run, fleet: Fleet, items: Sequence[TargetRun]) -> None:
    """Commit every held target at once; what fails is run forward again until `settle_timeout`, never compensated.

    Where somebody else has been at work since, the decision is theirs to carry out, and may have been taken back by
    them: the target is left alone, and in doubt unless it shows the run's marker.
    """
    first = _FirstTries(sum(item.gid is not None for item in items))
    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(_commit, run, fleet, item, first)


class _FirstTries:
    """The first COMMIT PREPARED of each database: what follows one takes time from the others, and can wait for them.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._over = anyio.Event()

    async def ended(self) -> None:
        """Wait, after one of them, for the others; not for long where a server does not answer."""
        self._left -= 1
        if self._left == 0:
            self._over.set()
        with anyio.move_on_after(_WINDOW_S):
            await self._over.wait()


async def _commit(run: Run, fleet: Fleet, item: TargetRun, first: _FirstTries) -> None:
    started_s = time.monotonic()
    deadline_s = started_s + run.plan.settle_timeout_ms / 1000
    failure = await _try(run, fleet, item, first)
    if failure is not None and failure.type not in _LASTING:
        get_logger().error(EventName.RECOVER_STARTED, databases=[item.name])
    while failure is not None and failure.type not in _LASTING and time.monotonic() < deadline_s:
        failure = await _run_forward(run, fleet, item, failure)
        if failure is not None:
            await anyio.sleep(_PAUSE_S)
    if failure is not None and failure.type in LOST and await _unmarked(run, fleet, item) is None:
        failure = None
    if failure is not None:
        if failure.type == WOULD_DISCARD:
            failure = replace(failure, hint=_DISCARD_HINT)
        item.stage, item.error = Stage.IN_DOUBT, failure
        run.fail(failure, item.name)
        return
    await note_committed(run, item, started_s)


async def _try(run: Run, fleet: Fleet, item: TargetRun, first: _FirstTries | None = None) -> ErrorInfo | None:
    if item.gid is not None:
        return await _commit_prepared(run, fleet, item, first)
    return await commit_held(run, fleet, item)


async def _commit_prepared(
    run: Run, fleet: Fleet, item: TargetRun, first: _FirstTries | None = None
) -> ErrorInfo | None:
    """Commit what is prepared, however often it takes; where it is gone, the marker says whether that was a commit."""
    deadline_s = time.monotonic() + run.plan.settle_timeout_ms / 1000
    fate = await settle_prepared(run, fleet, item, commits=True)
    # Its worker knows of its locks only up to the PREPARE.
    locked_ms = item.lock_hold_ms
    if first is not None:
        await first.ended()
    while isinstance(fate, ErrorInfo):
        if time.monotonic() > deadline_s:
            return fate
        await anyio.sleep(_PAUSE_S)
        fate = await settle_prepared(run, fleet, item, commits=True)
        locked_ms = item.lock_hold_ms
    leave(item)
    item.gid = None
    failure = await commit_held(run, fleet, item, gives_back=fate is Fate.ENDED)
    item.locked_ms = locked_ms
    if fate is Fate.GONE:
        return failure or await _unmarked(run, fleet, item)
    # Its worker has nothing left to do but to give the lease back, and dies without harm.
    if fleet.serving(item.target).is_lost:
        async with fleet.room_on(item.target):
            await end_session(item)
    return None


async def _unmarked(run: Run, fleet: Fleet, item: TargetRun) -> ErrorInfo | None:
    """Return why a transaction that is gone was not committed, or why nobody can tell; None where it was."""
    standing = await ask_standing(run, fleet, item)
    if isinstance(standing, ErrorInfo):
        return standing
    if standing.marker(run.run_id) is not None:
        return None
    return ErrorInfo("rolled_back_elsewhere", f"the transaction prepared on {item.name} was ended by somebody else")


async def _run_forward(run: Run, fleet: Fleet, item: TargetRun, failure: ErrorInfo) -> ErrorInfo | None:
    """Apply and commit again; of what was committed with a lost answer nothing is found to be pending."""
    try:
        await run.journal.renew()
    except Fenced as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    except JournalError:
        pass  # the lease of the database tells as well
    if failure.sqlstate is None:
        # A COMMIT without an answer may still be on its way: it comes before what is done now, or never.
        await end_session(item)
    try:
        await fleet.living(run.plan, item.target)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    held = item.holds
    await apply_target(run, fleet, item)
    if item.stage is not Stage.HELD:
        return item.error
    if not item.has_moved:
        # It had been committed: what it has moved is what it held.
        item.hold(held)
    return await _try(run, fleet, item)
