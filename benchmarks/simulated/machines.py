"""Machines of a fleet, and what stands for Procrastinate: it hands sessions to those that have room."""

import itertools
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio
from anyio.abc import TaskGroup

from benchmarks.simulated.databases import QUEUE_URL
from benchmarks.simulated.resources import CLIENT, Cores, Process
from benchmarks.simulated.workers import Hosting, Migrated
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.remote.post import GONE_S, Post, Side
from smooth_orchestrator.remote.queue import Job, Place
from smooth_orchestrator.remote.served import Served
from smooth_orchestrator.secrets import Masker

__all__ = ["Machines", "SimulatedQueue"]

# A machine that was lost is started again, by whatever supervises it.
_AGAIN_S: Final = 60.0


@dataclass(slots=True, eq=False)
class _Machine:
    """One of them.

    Args:
        name: its own.
        cores: which it has.
        slots: how many sessions it takes.
        serving: those that it has.
        life: what ends it.
        tasks: where its sessions are served, while it lives.
        post: by which they are spoken with.
    """

    name: str
    cores: Cores
    slots: int
    serving: set[str] = field(default_factory=set)
    life: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    tasks: TaskGroup | None = None
    post: Post | None = None

    @property
    def room(self) -> int:
        """How many more."""
        return self.slots - len(self.serving) if self.tasks else 0


class Machines:
    """All of them.

    Args:
        machines: cores and slots of each.
        project: that they serve.
        migrated: the databases.
        place: of the queue.
    """

    def __init__(
        self, machines: Sequence[tuple[Cores, int]], project: Project, migrated: Migrated, place: Place
    ) -> None:
        self._project = project
        self._migrated = migrated
        self._place = place
        self._pids = itertools.count(1000)
        self._jobs: deque[Job] = deque()
        self._all = [_Machine(f"machine-{n}", cores, slots) for n, (cores, slots) in enumerate(machines, 1)]
        self._lost_at_s: dict[str, float] = {}

    @property
    def room(self) -> int:
        """How many sessions all that live have room for, as their number is told."""
        return sum(each.slots for each in self._all if each.tasks)

    @property
    def places(self) -> int:
        """How many of these are free."""
        return sum(each.room for each in self._all if each.tasks) - len(self._jobs)

    def begin(self, tasks: TaskGroup) -> None:
        """Start all of them, until the tasks are cancelled."""
        for machine in self._all:
            tasks.start_soon(self._live, machine)

    def take(self, job: Job) -> None:
        """Have the machine with most room take up a session; the next one that has any where none has."""
        self._jobs.append(job)
        self._hand_out()

    def dead(self, sessions: Sequence[str]) -> frozenset[str]:
        """Return which of these are known to be lost by now: a machine is silent for some time before."""
        now_s = anyio.current_time()
        return frozenset(each for each in sessions if now_s - self._lost_at_s.get(each, now_s) > GONE_S)

    async def lose_some(self, every_s: float, chance: random.Random) -> None:
        """Lose a machine every so often, whichever, until cancelled; each comes back later."""
        while True:
            await anyio.sleep(every_s)
            machine = chance.choice(self._all)
            if machine.tasks:
                self._migrated.servers.usage.lost += 1
                self._lost_at_s |= dict.fromkeys(machine.serving, anyio.current_time())
                machine.life.cancel()

    async def _live(self, machine: _Machine) -> None:
        CLIENT.set(Process("machine", machine.cores, self._migrated.servers.usage))
        while True:
            with anyio.CancelScope() as machine.life:
                async with Post(QUEUE_URL, Side.WORKER).open() as machine.post, anyio.create_task_group() as tasks:
                    machine.tasks = tasks
                    self._hand_out()
                    await anyio.sleep_forever()
            machine.tasks = None
            machine.serving.clear()
            await anyio.sleep(_AGAIN_S)

    def _hand_out(self) -> None:
        while self._jobs:
            machine = max(self._all, key=lambda each: each.room)
            if not (machine.room and machine.tasks and machine.post):
                return
            job = self._jobs.popleft()
            machine.serving.add(job.session)
            machine.tasks.start_soon(self._serve, machine, machine.post, job)

    async def _serve(self, machine: _Machine, post: Post, job: Job) -> None:
        CLIENT.set(Process("worker", machine.cores, self._migrated.servers.usage))
        hosting = Hosting(CLIENT.get(), self._migrated, self._pids)
        served = Served(post, job, self._project, machine.name, Masker(), self._place.job_timeout_s)
        await served.serve(hosting)
        post.leave(job.session)
        machine.serving.discard(job.session)
        self._hand_out()


class SimulatedQueue:
    """What `opened` of the queue gives.

    Args:
        machines: which take sessions up.
        place: of the queue.
    """

    def __init__(self, machines: Machines, place: Place) -> None:
        self.place = place
        self._machines = machines

    async def defer(self, post: Post, job: Job) -> int:
        """Have a machine take up a session."""
        del post
        self._machines.take(job)
        return 1

    async def dead(self, post: Post, sessions: Sequence[str]) -> frozenset[str]:
        """Return which of these are with a machine that is gone."""
        del post
        return self._machines.dead(sessions)

    async def withdraw(self, post: Post, session: str) -> bool:
        """Take a session out of the queue; all have been begun."""
        del post, session
        return False

    async def tidy(self, post: Post) -> None:
        """Forget what is gone; nothing is remembered."""

    async def room(self, post: Post, project: str) -> int:
        """Return how many sessions there is room for."""
        del post, project
        return self._machines.room

    async def places(self, post: Post, project: str) -> int:
        """Return how many of these are free."""
        del post, project
        return self._machines.places
