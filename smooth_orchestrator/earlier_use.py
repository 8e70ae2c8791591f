"""A run id that its caller uses again: what marks an earlier use must not be taken for this run's own mark."""

import anyio

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_orchestrator.errors import Locked, Mistake, Refused
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.run_ids import is_new
from smooth_orchestrator.saga import reverse
from smooth_orchestrator.standing import ask_standing

__all__ = ["remove_earlier_marks"]


async def remove_earlier_marks(run: Run, fleet: Fleet) -> None:
    """Remove the marks that an earlier run of this id has left in databases of this one, also where nothing is pending.

    Another deploy may have used it, or this one, whose journal was lost since. Recovery takes a mark for a commit.
    Earlier runs must have been settled. Safe to repeat.

    Args:
        run: which has passed the preflight, and has begun with no database.
        fleet: its workers.

    Raises:
        Locked: somebody is at work on one of the databases.
        Refused: a mark cannot be removed.
    """
    if is_new(run.run_id):
        return
    found: list[Mistake] = []

    async def remove(item: TargetRun) -> None:
        standing = await ask_standing(run, fleet, item)
        failure: ErrorInfo | None = None
        if not isinstance(standing, Standing):
            failure = standing
        elif standing.holder:
            raise Locked(
                f"another run is at work on {item.name}: {standing.holder}", hint="wait for it, or end that process"
            )
        elif (marker := standing.marker(run.run_id)) is not None:
            # Of no step: the mark alone goes, and no other one.
            item.epoch = marker.epoch
            failure = await reverse(run, fleet, item)
        if failure is not None:
            found.append(Mistake(item.name, failure.message, failure.hint))

    async with anyio.create_task_group() as group:
        for item in run.targets:
            if not item.is_quiet or (item.glance and item.glance.is_marked):
                group.start_soon(remove, item)
    if found:
        raise Refused(
            f"the mark of an earlier run {run.run_id} could not be removed", hint="use another --run-id", findings=found
        )
