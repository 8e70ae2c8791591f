"""`smooth-orchestrate worker PLAN`: a machine of a fleet, from its start until a signal has it drain."""

import math
from collections.abc import Sequence

import anyio
from anyio.abc import TaskStatus

from smooth_orchestrator import plan as planning
from smooth_orchestrator.config import PlanFile, Transport
from smooth_orchestrator.ending import ENDING
from smooth_orchestrator.errors import Mistake, PlanInvalid
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.remote.machine import Machine
from smooth_orchestrator.remote.post import Post, Side
from smooth_orchestrator.remote.queue import opened, place_of
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.suggestions import did_you_mean, listed, quoted

__all__ = ["work"]


async def work(file: PlanFile, masker: Masker, *, concurrency: int, projects: Sequence[str] = ()) -> None:
    """Serve coordinators until SIGTERM or SIGINT; then finish what is at hand, and take up nothing more.

    A second signal ends what is at hand, which rolls back what stands open.

    Args:
        file: the plan.
        masker: knows its secrets, and learns those that projects tell.
        concurrency: how many sessions at a time, each a process.
        projects: those that this machine serves; empty for all.

    Raises:
        PlanInvalid: the plan has no fleet, or no such project.
        WorkerError: the queue's database cannot be reached.
    """
    _check(file, projects)
    found = planning.projects_of(file)
    served = {name: project for name, project in found.items() if not projects or name in projects}
    place = place_of(file)
    draining = anyio.Event()
    async with Post(place.url, Side.WORKER, patience_s=math.inf).open() as post, opened(place) as queue:
        machine = Machine(served, queue, post, concurrency, masker)
        async with anyio.create_task_group() as group:
            await group.start(_hear_signals, draining, machine)
            _tell(f"{machine.name} serves {listed([*served])}, {concurrency} at a time")
            await machine.serve(draining)
            group.cancel_scope.cancel()
    _tell(f"{machine.name} has ended")


def _check(file: PlanFile, projects: Sequence[str]) -> None:
    if file.fleet.transport is not Transport.PROCRASTINATE:
        raise PlanInvalid([Mistake("fleet.transport", "a worker needs a queue", 'set transport = "procrastinate"')])
    unknown = [name for name in projects if name not in file.projects]
    if unknown:
        raise PlanInvalid(
            Mistake("--projects", f"there is no project {quoted(name)}", did_you_mean(name, file.projects))
            for name in unknown
        )


async def _hear_signals(draining: anyio.Event, machine: Machine, *, task_status: TaskStatus[None]) -> None:
    with anyio.open_signal_receiver(*ENDING[:2]) as received:
        task_status.started()
        async for _number in received:
            if draining.is_set():
                machine.abandon()
            else:
                _tell("ends when what is at hand has ended; another signal ends that too")
                draining.set()


def _tell(message: str) -> None:
    get_logger().info(EventName.LOG_MESSAGE, logger="worker", message=message)
