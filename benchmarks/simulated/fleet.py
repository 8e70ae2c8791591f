"""A deploy by the program itself, whose servers, machines and clock are simulated."""

import itertools
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import anyio
import asyncpg

from benchmarks.simulated.clock import replaced, run_simulated
from benchmarks.simulated.databases import QUEUE_URL, Servers
from benchmarks.simulated.machines import Machines, SimulatedQueue
from benchmarks.simulated.resources import CLIENT, Cores, Costs, Process, Usage
from benchmarks.simulated.workers import Hosting, Migrated
from smooth_orchestrator import runner
from smooth_orchestrator.config import understand
from smooth_orchestrator.plan import projects_of
from smooth_orchestrator.remote import transport
from smooth_orchestrator.remote.queue import Place, place_of
from smooth_orchestrator.report import Report
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.signals import hearing_instead

__all__ = ["Scenario", "Simulated", "simulate"]

_RUN_ID: Final = "20260101T000000-00000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated.

    Args:
        databases: how many.
        workers: how many sessions at a time.
        on_each_machine: of them.
        cores: of a machine.
        each_server: how many databases a server has at the most.
        server_cores: of each server, and of the queue's.
        phase: how many databases are committed by one decision; 0 for all of them.
        wait_s: for how long the migration itself waits.
        lost_every_s: how often a machine is lost; 0 for never.
        slow_servers: how many servers are slow, and how many times as long they take.
        shared: whether all of it, but for what waits, is on the cores of one machine.
        share: what part of that machine's time there is for it; others have the rest.
        seed: of what is left to chance.
    """

    databases: int
    workers: int
    on_each_machine: int = 8
    cores: int = 4
    each_server: int = 500
    server_cores: int = 8
    phase: int = 0
    wait_s: float = 0.2
    lost_every_s: float = 0.0
    slow_servers: tuple[int, float] = (0, 1.0)
    shared: bool = False
    share: float = 1.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Simulated:
    """What came of it.

    Args:
        report: of the program.
        duration_s: simulated time.
        busy: what share of it each resource was at work, at the most among those of its kind.
        usage: what was counted.
    """

    report: Report
    duration_s: float
    busy: Mapping[str, float]
    usage: Usage


@dataclass(slots=True)
class _World:
    """The cores and the servers of a scenario."""

    scenario: Scenario
    costs: Costs
    usage: Usage = field(default_factory=Usage)
    chance: random.Random = field(init=False)
    shared: Cores = field(init=False)
    servers: dict[str, Cores] = field(default_factory=dict)
    machines: list[tuple[Cores, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        scenario = self.scenario
        self.chance = random.Random(scenario.seed)  # noqa: S311 - no secret
        self.shared = Cores("cores", scenario.cores, self.chance, scenario.share)
        names = [f"/db{number}" for number in range(-(-scenario.databases // scenario.each_server))]
        self.servers = {name: self.cores("server", scenario.server_cores) for name in names}
        self.servers["queue"] = self.cores("queue", scenario.server_cores)
        left = scenario.workers
        while left > 0:
            slots = min(left, scenario.on_each_machine)
            self.machines.append((self.cores("machine", scenario.cores), slots))
            left -= slots

    def cores(self, name: str, count: int) -> Cores:
        """Return new cores; those of the one machine on which all is."""
        return self.shared if self.scenario.shared else Cores(name, count, self.chance)

    def busy(self, duration_s: float) -> dict[str, float]:
        """Return what share of the time each kind of resource was at work, at the most."""
        found = {"coordinator": self.usage.spent_s["coordinator"] / duration_s}
        if self.scenario.shared:
            return found | {"cores": self.shared.busy_s / self.shared.count / duration_s}
        for each in (*self.servers.values(), *(cores for cores, _slots in self.machines)):
            share = each.busy_s / each.count / duration_s
            found[each.name] = max(found.get(each.name, 0.0), share)
        return found


def simulate(scenario: Scenario, costs: Costs) -> Simulated:
    """Have the program deploy, and return how that went. The same comes of the same scenario each time."""
    with TemporaryDirectory(prefix="smooth-simulated-") as directory:
        return run_simulated(lambda: _deploy(scenario, costs, Path(directory)))


async def _deploy(scenario: Scenario, costs: Costs, directory: Path) -> Simulated:
    world = _World(scenario, costs)
    slow, times = scenario.slow_servers
    names = [name for name in world.servers if name != "queue"]
    servers = Servers(costs, world.servers, dict.fromkeys(names[:slow], times), world.usage)
    phases = [range(scenario.databases)]
    if scenario.phase:
        starts = range(0, scenario.databases, scenario.phase)
        phases = [range(start, min(start + scenario.phase, scenario.databases)) for start in starts]
    # The databases of a phase are on all servers, so that all of them are at work.
    databases = {
        f"p{phase}_{number}": names[number % len(names)] for phase, numbers in enumerate(phases) for number in numbers
    }
    migrated = Migrated(servers, databases, scenario.wait_s)
    file = understand(_plan(scenario, len(phases)), directory / "deploy.toml", {})
    coordinator = Process("coordinator", world.cores("coordinator", 1), world.usage)
    CLIENT.set(coordinator)
    place = place_of(file)
    (project,) = projects_of(file).values()
    machines = Machines(world.machines, project, migrated, place)
    pids = itertools.count(1)
    reading = Process("worker", world.cores("reader", 1), world.usage)

    @asynccontextmanager
    async def opened(place: Place) -> AsyncIterator[SimulatedQueue]:
        yield SimulatedQueue(machines, place)

    with ExitStack() as stack:
        stack.enter_context(replaced(asyncpg, "connect", servers.connect))
        stack.enter_context(replaced(transport, "opened", opened))
        hosting = Hosting(reading, migrated, pids, tells=True)
        stack.enter_context(replaced(transport, "LocalTransport", lambda: hosting))
        stack.enter_context(hearing_instead(anyio.Event()))
        async with anyio.create_task_group() as tasks:
            machines.begin(tasks)
            if scenario.lost_every_s:
                tasks.start_soon(machines.lose_some, scenario.lost_every_s, random.Random(scenario.seed))  # noqa: S311 - which machine is lost
            await anyio.sleep(1.0)  # they are there before a deploy begins
            started_s = anyio.current_time()
            await coordinator.use(costs.begin)
            report = await runner.deploy(file, run_id=_RUN_ID, masker=Masker(), replays=True)
            duration_s = anyio.current_time() - started_s
            tasks.cancel_scope.cancel()
    return Simulated(report, duration_s, world.busy(duration_s), world.usage)


def _plan(scenario: Scenario, phases: int) -> dict[str, Any]:
    commit = {"commit": "phase"} if scenario.phase else {}
    parallel = min(scenario.workers, 1000)
    return {
        "version": 1,
        "deploy": {
            "name": "simulated",
            "journal": QUEUE_URL,
            "expand_contract": False,
            "max_lock_hold": "24h",
            **commit,
        },
        "projects": {"one": {"path": ".", "settings": "settings"}},
        "databases": {"shards": {"project": "one", "aliases": "p*"}},
        "phases": [
            {"name": f"p{phase}", "databases": [f"shards:p{phase}_*"], "parallel": parallel} for phase in range(phases)
        ],
        "fleet": {"transport": "procrastinate", "queue_url": QUEUE_URL},
    }
