"""The one target whose transaction cannot be prepared: it commits first, and its marker is the decision.

Everything else waits prepared, so that a commit which fails here aborts the whole, and one that succeeds decides it.
Whoever finds the run cut off looks for the marker; before that it takes a turn on the database, so that a coordinator
which only slept cannot commit any more.
"""

import time

import anyio

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_migrations.protocol.failpoints import passing
from smooth_orchestrator.barrier import left_to_lock_s
from smooth_orchestrator.commits import commit_held, note_committed
from smooth_orchestrator.config import Tier
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.standing import ask_standing

__all__ = ["commit_last_resource", "last_resource"]

_PAUSE_S = 0.5


def last_resource(run: Run) -> TargetRun | None:
    """Return the only target at the barrier whose transaction is held open, if there is one such. Pure.

    One that has nothing to commit has no marker, and decides nothing.
    """
    held = [item for item in run.in_stage(Stage.HELD) if item.tier is Tier.HELD_OPEN and item.has_moved]
    return held[0] if len(held) == 1 else None


async def commit_last_resource(run: Run, fleet: Fleet, item: TargetRun) -> ErrorInfo | None:
    """Commit it, or return why it is not committed; its stage says whether that is known.

    An answer that does not come, or not before `max_lock_hold` is over, is settled by looking at the database, for
    `settle_timeout`.
    """
    started_s = time.monotonic()
    failure: ErrorInfo | None = ErrorInfo(
        "max_lock_hold",
        f"{item.name} could not be committed while locks may be held",
        hint="end what reads or writes there, or raise max_lock_hold",
    )
    with passing("decide"), anyio.move_on_after(left_to_lock_s(run)) as limit:
        failure = await commit_held(run, fleet, item)
    if limit.cancelled_caught:
        # What it still does must not be done late.
        fleet.serving(item.target).kill()
    if failure is not None:
        failure = await _settle(run, fleet, item, failure)
    if failure is None:
        await note_committed(run, item, started_s)
    return failure


async def _settle(run: Run, fleet: Fleet, item: TargetRun, failure: ErrorInfo) -> ErrorInfo | None:
    deadline_s = anyio.current_time() + run.plan.settle_timeout_ms / 1000
    while True:
        standing = await ask_standing(run, fleet, item, fences=True)
        if isinstance(standing, Standing) and not (standing.holder or standing.is_missing):
            if standing.marker(run.run_id) is not None:
                return None
            item.stage, item.error = Stage.FAILED, failure
            return failure
        if anyio.current_time() > deadline_s:
            item.stage, item.error = Stage.IN_DOUBT, failure
            return failure
        await anyio.sleep(_PAUSE_S)
