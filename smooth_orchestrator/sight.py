"""What the databases of a plan show of interrupted runs, and which runs have left anything there."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_orchestrator.errors import Locked
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Journal
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.prepared import is_rehearsed, run_of
from smooth_orchestrator.rules import Shown
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.standing import ask_standing
from smooth_orchestrator.told import Told
from smooth_orchestrator.whose import identity_of, known_elsewhere, missing_database

__all__ = ["Seen", "is_elsewhere", "look_at", "runs_left"]

_PAUSE_S: Final = 0.5


async def runs_left(
    plan: Plan, journal: Journal, fleet: Fleet, known: Collection[str], *, quiet: Collection[str] = ()
) -> dict[str, dict[str, set[str]]]:
    """Return the other runs that have left something undecided in databases that can be reached: by them, what gids.

    Ends those runs' sessions there, and changes nothing else.

    Args:
        plan: of the deploy.
        journal: where its runs are written down.
        fleet: its workers.
        known: runs that are left out.
        quiet: databases that are known to hold nothing of any.

    Raises:
        Locked: one of them is at work, by another plan or another journal.
    """
    run = Run(plan, "", journal)
    found: dict[str, dict[str, set[str]]] = {}

    async def look(item: TargetRun) -> None:
        answer = await ask_standing(run, fleet, item)
        if not isinstance(answer, Standing):
            return
        left = {run_id for gid in answer.gids if (run_id := run_of(gid)) is not None}
        # A run's id holds no colon, and that of a call which belongs to no run does.
        if answer.unfinished and ":" not in answer.unfinished:
            left.add(answer.unfinished)
        for run_id in left.difference(known):
            gids = {gid for gid in answer.gids if run_of(gid) == run_id}
            found.setdefault(run_id, {})[item.name] = gids
        if left.difference(known) and answer.holder:
            raise _locked(item, answer.holder)

    async with anyio.create_task_group() as group:
        for item in run.targets:
            if item.name not in quiet:
                group.start_soon(look, item)
    return found


@dataclass(frozen=True, slots=True)
class Seen:
    """What databases show of a run.

    Args:
        shown: what each of the run's shows.
        others: those that show nothing, and are other ones than the run's of these names.
    """

    shown: dict[str, Shown] = field(default_factory=dict)
    others: list[TargetRun] = field(default_factory=list)


async def look_at(run: Run, fleet: Fleet, told: Told, items: Sequence[TargetRun], *, fenced: Collection[str]) -> Seen:
    """Return what each database shows; one that stays away for longer than `settle_timeout` fails the run.

    So does one that is not there.

    Args:
        run: which; its targets note what they show.
        fleet: its workers.
        told: what the journal tells of the run.
        items: the targets to be looked at.
        fenced: those of them of which one alone may have decided by its commit.

    Raises:
        Locked: somebody is at work on one of them.
        NotInPlan: the journal does not know the run, and another deploy has committed by its id on one of them.
    """
    seen = Seen()

    async def look(item: TargetRun) -> None:
        answer = await _asked(run, fleet, told, item, fences=item.name in fenced)
        if isinstance(answer, ErrorInfo):
            item.stage, item.error = Stage.IN_DOUBT, answer
            run.fail(answer, item.name)
            return
        each = _shown(run, item, told, answer)
        if told.deploy is None and answer.elsewhere:
            raise known_elsewhere(run, item, answer)
        if each is Shown.NOTHING and told.was_another(item.name, identity_of(run, item, answer)):
            seen.others.append(item)
        elif answer.holder:
            raise _locked(item, answer.holder)
        else:
            seen.shown[item.name] = each

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(look, item)
    return seen


async def is_elsewhere(run: Run, fleet: Fleet, told: Told) -> bool:
    """Return whether a run is another environment's: every database of its is another one than the plan's of that name.

    Each was looked at then, and none shows anything of it. Ends the run's sessions there, and changes nothing else.

    Args:
        run: which.
        fleet: its workers.
        told: what its records say.
    """
    items = [item for item in run.targets if item.name in told.targets]
    if not told.is_known or len(items) < len(told.targets):
        return False
    for item in items:
        answer = await ask_standing(run, fleet, item)
        if not isinstance(answer, Standing) or run.run_id in map(run_of, answer.gids):
            return False
        is_other = told.was_another(item.name, identity_of(run, item, answer))
        if not is_other or _shown(run, item, told, answer) is not Shown.NOTHING:
            return False
    return True


async def _asked(run: Run, fleet: Fleet, told: Told, item: TargetRun, *, fences: bool) -> Standing | ErrorInfo:
    """Look at a database again and again while it stays away, or the run itself is at work there; not for ever.

    The coordinator of a run that the journal knows is gone, and its workers on other machines are to end when they have
    not heard of it for as long as a lease lasts. On this machine they end with it, unless it is frozen.
    """
    deadline_s = anyio.current_time() + run.plan.settle_timeout_ms / 1000
    waits = False
    while True:
        answer = await ask_standing(run, fleet, item, fences=fences)
        if isinstance(answer, Standing):
            answer = missing_database(run, item, told, answer) or answer
        orphan = answer if isinstance(answer, Standing) and _is_orphaned(run, told, answer) else None
        if anyio.current_time() > deadline_s or (isinstance(answer, Standing) and orphan is None):
            return answer
        if orphan is not None and not waits:
            waits = True
            message = f"waiting for a worker of this run, whose coordinator is gone: {orphan.holder}"
            get_logger().warning(EventName.LOG_MESSAGE, logger="recovery", message=message, database=item.name)
        await anyio.sleep(_PAUSE_S)


def _is_orphaned(run: Run, told: Told, standing: Standing) -> bool:
    return run.plan.is_remote and told.is_known and standing.held_by == run.run_id


def _locked(item: TargetRun, holder: str) -> Locked:
    return Locked(f"another run is at work on {item.name}: {holder}", hint="wait for it, or end that process")


def _shown(run: Run, item: TargetRun, told: Told, standing: Standing) -> Shown:
    item.leaves_steps, item.epoch = standing.unfinished == run.run_id, standing.epoch
    item.left = standing.steps if item.leaves_steps else ()
    item.identity = identity_of(run, item, standing)
    gids = (gid for gid in standing.gids if run_of(gid) == run.run_id)
    item.gid = next((gid for gid in gids if told.owns(gid, item.phase)), None)
    if item.gid is not None:
        told.rehearses = told.rehearses or is_rehearsed(item.gid)
        return Shown.PREPARED
    if (marker := standing.marker(run.run_id)) is not None:
        # Other calls may have had a turn since then.
        item.epoch, item.marked_by = marker.epoch, marker.digest if marker.command == "deploy" else None
        return Shown.DONE
    return Shown.STEPS if item.leaves_steps else Shown.NOTHING
