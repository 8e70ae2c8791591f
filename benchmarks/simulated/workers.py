"""What stands for a worker process: it says what one of a real project would, and takes its time for it."""

import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from benchmarks.simulated.databases import APPLIED, QUESTION, Servers
from benchmarks.simulated.resources import Process
from smooth_migrations import protocol
from smooth_migrations.protocol import Command, DatabaseFacts, Done, Event, Hello, PendingMigration, Question, Step
from smooth_migrations.protocol.events import TargetReport
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport.base import OnEvent, OnOutput, Worker, WorkerLost

__all__ = ["Hosting", "Migrated", "SimulatedWorker"]

_STEP: Final = Step("demo", "0002_waits")
_PENDING: Final = (PendingMigration(migration=str(_STEP), atomic=True),)
_QUESTIONS: Final = (Question(QUESTION, "yes"),)
_LOCKED_MS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Migrated:
    """What there is to be migrated.

    Args:
        servers: of all databases.
        databases: by alias, the server.
        wait_s: for how long the migration itself waits.
    """

    servers: Servers
    databases: Mapping[str, str]
    wait_s: float

    @property
    def facts(self) -> tuple[DatabaseFacts, ...]:
        """What a project's settings tell of them."""
        return tuple(
            DatabaseFacts(
                alias=alias,
                vendor="postgresql",
                identity=f"postgresql:{server}:5432/{alias}",
                asyncpg={"host": server, "port": 5432, "database": alias},
                is_plain=True,
            )
            for alias, server in self.databases.items()
        )


class SimulatedWorker:
    """A worker; see `Worker` for what it does.

    Args:
        project: whose Django it has.
        hello: what it says of itself.
        process: whose time it spends.
        migrated: the databases.
    """

    machine: None = None

    def __init__(self, project: Project, hello: Hello, process: Process, migrated: Migrated) -> None:
        self.project = project
        self.hello = hello
        self.pid = hello.pid
        self.heard_s = time.monotonic()
        self._process = process
        self._migrated = migrated
        self._ids = itertools.count(1)
        self._lost = anyio.Event()
        self._is_up = False
        self._is_first = True

    @property
    def is_lost(self) -> bool:
        """Whether it has ended."""
        return self._lost.is_set()

    @property
    def loss(self) -> WorkerLost | None:
        """How it has ended."""
        return WorkerLost("the worker was killed") if self.is_lost else None

    async def set_up(self) -> None:
        """Start Django, once."""
        async with self._process.at_work():
            if not self._is_up:
                await self._process.use(self._migrated.servers.costs.start)
            self._is_up = True

    def next_id(self) -> int:
        """Return an id."""
        return next(self._ids)

    async def tell(self, command: Command) -> None:
        """Hear a command that has no answer."""

    async def lost(self) -> WorkerLost:
        """Wait for its end."""
        await self._lost.wait()
        return WorkerLost("the worker was killed")

    def kill(self) -> None:
        """End."""
        self._lost.set()

    async def call(self, command: Command, on_event: OnEvent | None = None) -> Event:
        """Do one thing after the other."""
        async with self._process.at_work():
            return await self._obey(command, on_event)

    async def _obey(self, command: Command, on_event: OnEvent | None) -> Event:
        servers = self._migrated.servers
        costs, server = servers.costs, self._migrated.databases.get(command.alias, "")
        match command:
            case protocol.AskCode():
                return protocol.Code(id=command.id, digest="the same")
            case protocol.Inspect():
                await self._process.use(costs.inspect)
                await servers.serve(server, costs.session + costs.migrate)
                return self._report(command, server)
            case protocol.Apply():
                return await self._apply(command, server, on_event)
            case protocol.Prepare():
                await self._process.use(costs.prepare)
                await servers.serve(server, costs.prepared, commits=True)
                servers.usage.prepare(command.gid or "")
                servers.close(server)
                return Done(id=command.id, renewal="RENEW")
            case protocol.Commit():
                await self._process.use(costs.commit)
                await servers.serve(server, costs.session + costs.ended, commits=True)
        return Done(id=command.id)

    async def _apply(self, command: protocol.Apply, server: str, on_event: OnEvent | None) -> Event:
        servers = self._migrated.servers
        costs, first = servers.costs, servers.costs.first if self._is_first else 0.0
        self._is_first = False
        number = command.id
        servers.usage.open(server)

        async def say(*events: Event) -> None:
            for event in events:
                if on_event is not None:
                    await on_event(event)

        await self._process.use(first + costs.apply / 2)
        await servers.serve(server, costs.session + costs.migrate / 2, commits=True)
        await say(
            protocol.Session(id=number, backend_pid=1, backend_start="1"),
            protocol.Leased(id=number, epoch=1),
            protocol.MigrationStarted(id=number, step=_STEP),
        )
        await servers.serve(server, 0.0, waits_s=self._migrated.wait_s)
        await self._process.use(costs.apply / 2)
        await servers.serve(server, costs.migrate / 2)
        await say(protocol.MigrationApplied(id=number, step=_STEP, duration_ms=self._migrated.wait_s * 1000))
        return Done(id=number, steps=(_STEP,), locked_ms=_LOCKED_MS)

    def _report(self, command: Command, server: str) -> TargetReport:
        return TargetReport(
            id=command.id,
            vendor="postgresql",
            server_version="18.0",
            physical=f"{server}/{command.alias}",
            applied=APPLIED,
            pending=_PENDING,
            lock_entries=3,
            lock_entries_each=3,
            prepared_slots=1_000_000,
            asked=_QUESTIONS,
        )


class Hosting:
    """Where workers are started: what stands for `LocalTransport`.

    Args:
        process: whose time they spend, all of them by turns; a machine gives each its own.
        migrated: the databases.
        pids: of the next ones.
        tells: whether their settings are read for what they tell of the databases.
    """

    def __init__(
        self, process: Process, migrated: Migrated, pids: "itertools.count[int]", *, tells: bool = False
    ) -> None:
        self._process = process
        self._migrated = migrated
        self._pids = pids
        self._facts = migrated.facts if tells else ()

    async def most(self, project: Project) -> int:
        """Return how many there may be."""
        del project
        return 1

    async def has_place(self, project: Project) -> bool:
        """Return that there is."""
        del project
        return True

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return nothing."""
        return ()

    @asynccontextmanager
    async def worker(
        self, project: Project, *, on_output: OnOutput, like: Worker | None = None
    ) -> AsyncIterator[SimulatedWorker]:
        """Start one for the length of a context."""
        del on_output, like
        hello = Hello(
            protocol=protocol.PROTOCOL,
            pid=next(self._pids),
            python="3",
            django="5",
            version="0",
            databases=self._facts,
            has_routers=False,
        )
        yield SimulatedWorker(project, hello, self._process, self._migrated)
