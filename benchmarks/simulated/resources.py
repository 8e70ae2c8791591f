"""What work takes its time on: cores that are shared, and processes that do one thing at a time."""

import heapq
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import anyio

__all__ = ["CLIENT", "Cores", "Costs", "Process", "Usage"]

# By how much of what it takes on the whole anything may take less, or more.
_SPREAD: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds of a processor, unless they are called a wait; each was measured.

    Args:
        connect: the coordinator opens and closes a session.
        statement: it sends one, and takes the answer.
        message: it sends or takes one of the queue's.
        row: it has the journal write one.
        target: what else it does for a database: the log, the order of things.
        begin: the program itself starts.
        start: a worker starts Django.
        inspect: a worker looks at a database.
        first: the first migration that a worker runs takes longer by this.
        apply: a worker runs a migration; `prepare` and `commit` likewise.
        session: a server opens a session.
        cleared: it ends one, and does by itself what that one has left to be done; nobody waits for it.
        query: a server answers the coordinator; `renewed` a lease, `migrate`, `prepared`, `ended` what a worker asks,
            `stored` a message or a row, `written` a statement that writes some of these.
        round_trip_wait: there and back.
        commit_wait: until a commit is on disk.
    """

    connect: float
    statement: float
    message: float
    row: float
    target: float
    begin: float
    start: float
    inspect: float
    first: float
    apply: float
    prepare: float
    commit: float
    session: float
    cleared: float
    query: float
    renewed: float
    migrate: float
    prepared: float
    ended: float
    stored: float
    written: float
    round_trip_wait: float
    commit_wait: float


class Cores:
    """Cores of one machine, first come first served.

    Args:
        name: what they are called in a table.
        count: how many.
        chance: nothing takes exactly as long each time, or what is at work would fall in step.
        share: what part of their time they have for this.
    """

    def __init__(self, name: str, count: int, chance: random.Random, share: float = 1.0) -> None:
        self.name = name
        self.count = count
        self.busy_s = 0.0
        self._chance = chance
        self._share = share
        self._free_at_s = [0.0] * count

    def have(self, seconds: float, from_s: float) -> float:
        """Have a core for so long, as soon as there is one from a moment on; return until when."""
        seconds *= self._chance.uniform(1 - _SPREAD, 1 + _SPREAD)
        until_s = max(from_s, self._free_at_s[0]) + seconds / self._share
        heapq.heapreplace(self._free_at_s, until_s)
        self.busy_s += seconds
        return until_s


class Process:
    """A process that does one thing at a time, on somebody's cores.

    Args:
        name: what it is called in a table.
        cores: those.
        usage: what is counted.
    """

    def __init__(self, name: str, cores: Cores, usage: "Usage") -> None:
        self._name = name
        self._usage = usage
        self._cores = cores
        self._free_at_s = 0.0
        self._lock = anyio.Lock()

    async def use(self, seconds: float) -> None:
        """Wait until it has done so much, after all that it was to do before."""
        now_s = anyio.current_time()
        self._usage.spent_s[self._name] += seconds
        self._free_at_s = self._cores.have(seconds, max(now_s, self._free_at_s))
        await anyio.sleep(self._free_at_s - now_s)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Have it do one thing at a time for the length of a context, also while it waits."""
        async with self._lock:
            yield


@dataclass(slots=True)
class Usage:
    """What was counted.

    Args:
        sessions: open now, by server.
        most_sessions: the most there were at a time on any.
        prepared: what stands prepared now.
        most_prepared: the most that did.
        spent_s: of the processor, by who has spent it.
    """

    sessions: dict[str, int] = field(default_factory=dict)
    most_sessions: int = 0
    prepared: set[str] = field(default_factory=set)
    most_prepared: int = 0
    committed: int = 0
    messages: int = 0
    message_bytes: int = 0
    rows: int = 0
    row_bytes: int = 0
    renewals: int = 0
    spent_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    lost: int = 0

    def open(self, server: str) -> None:
        """Count a session that begins."""
        self.sessions[server] = self.sessions.get(server, 0) + 1
        self.most_sessions = max(self.most_sessions, self.sessions[server])

    def close(self, server: str) -> None:
        """Count one that ends."""
        self.sessions[server] -= 1

    def prepare(self, gid: str) -> None:
        """Count a transaction that was prepared."""
        self.prepared.add(gid)
        self.most_prepared = max(self.most_prepared, len(self.prepared))

    def end(self, gid: str, *, commits: bool) -> None:
        """Count one that was ended."""
        self.prepared.discard(gid)
        self.committed += commits


CLIENT: ContextVar[Process] = ContextVar("client")
"""Whose time is spent by the task at hand."""
