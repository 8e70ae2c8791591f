"""What stands for asyncpg: servers that answer what the program asks of them, and take their time for it.

They know a statement by a part of its text. One that they do not know is an error, so that none is answered amiss.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

import anyio

from benchmarks.simulated.resources import CLIENT, Cores, Costs, Usage
from smooth_orchestrator.glances import digest_of
from smooth_orchestrator.journal import RecordKind

__all__ = ["APPLIED", "QUESTION", "QUEUE_URL", "Postal", "Servers"]

QUEUE_URL: Final = "postgresql://smooth@queue/smooth"
APPLIED: Final = ("demo.0001_first",)
QUESTION: Final = "SELECT 'asked'"
_PLENTY: Final = 1_000_000
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TABLES: Final = ("django_migrations", *(f"smooth_migrations_{name}" for name in ("journal", "lease", "marker")))
_GID: Final = re.compile(r"(COMMIT|ROLLBACK) PREPARED '(.*)'")

Row = Mapping[str, Any]


@dataclass(slots=True)
class Postal:
    """The messages in the queue's database, and who listens.

    Args:
        messages: by session and side, in order.
        first: likewise, the first of each.
        heard: what to call, by channel.
    """

    messages: dict[tuple[str, str], list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    heard: dict[str, list[Callable[..., None]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(slots=True)
class _Server:
    name: str
    cores: Cores
    slowness: float = 1.0


class Servers:
    """All servers, and `connect`, which is called instead of asyncpg's.

    Args:
        costs: see there.
        cores: by server; the queue's is `queue`.
        slowness: by server, how many times as long it takes, where that is not once.
        usage: what is counted.
    """

    def __init__(self, costs: Costs, cores: Mapping[str, Cores], slowness: Mapping[str, float], usage: Usage) -> None:
        self.costs = costs
        self.usage = usage
        self.postal = Postal()
        self._servers = {name: _Server(name, each, slowness.get(name, 1.0)) for name, each in cores.items()}
        self.numbers = count(1)

    async def connect(self, url: str | None = None, **options: Any) -> "Session":  # noqa: ANN401 - as asyncpg's
        """Open a session."""
        server = "queue" if url else str(options["host"])
        await CLIENT.get().use(self.costs.connect)
        await self.serve(server, self.costs.session)
        self.usage.open(server)
        return Session(self, server, str(options.get("database", "")))

    def close(self, server: str) -> None:
        """Close a session, and have the server clear up after it, for which nobody waits."""
        found = self._servers[server]
        self.usage.close(server)
        self._spend(found, self.costs.cleared)

    def _spend(self, server: _Server, seconds: float) -> float:
        """Have a server at work for so long, and return when it has been."""
        spent_s = seconds * server.slowness
        self.usage.spent_s["queue" if server.name == "queue" else "server"] += spent_s
        return server.cores.have(spent_s, anyio.current_time())

    async def serve(self, server: str, seconds: float, *, commits: bool = False, waits_s: float = 0.0) -> None:
        """Have a server do something, and wait for the answer."""
        found = self._servers[server]
        wait_s = self.costs.round_trip_wait + (self.costs.commit_wait if commits else 0.0) + waits_s * found.slowness
        await anyio.sleep(self._spend(found, seconds) - anyio.current_time() + wait_s)


class Session:
    """What `connect` returns.

    Args:
        servers: of all.
        server: on which it is.
        database: to which it is.
    """

    def __init__(self, servers: Servers, server: str, database: str) -> None:
        self._servers = servers
        self._server = server
        self._database = database
        self._is_closed = False

    def is_closed(self) -> bool:
        """Return whether it has ended."""
        return self._is_closed

    def terminate(self) -> None:
        """End it. Repeating it does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._servers.close(self._server)

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncpg's
        """End it."""
        del timeout
        self.terminate()

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """Call a function when something is told of there."""
        await self._ask("LISTEN")
        self._servers.postal.heard[channel].append(callback)

    async def remove_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """Call it no more, if it was to be called."""
        if callback in self._servers.postal.heard[channel]:
            await self._ask("UNLISTEN")
            self._servers.postal.heard[channel].remove(callback)

    @asynccontextmanager
    async def transaction(self, *, readonly: bool = False) -> AsyncIterator[None]:
        """Hold all that is done in a context until its end."""
        yield
        # BEGIN and COMMIT.
        await CLIENT.get().use(2 * self._servers.costs.statement)
        await self._servers.serve(self._server, 0.0, commits=not readonly)

    async def execute(self, sql: str, *values: Any) -> str:  # noqa: ANN401 - as asyncpg's
        """Do something."""
        await self._ask(sql, *values)
        return "UPDATE 1"

    async def fetchval(self, sql: str, *values: Any) -> Any:  # noqa: ANN401 - as asyncpg's
        """Return the first value of the first row."""
        rows = await self._ask(sql, *values)
        return next(iter(rows[0].values())) if rows else None

    async def fetch(self, sql: str, *values: Any) -> list[Row]:  # noqa: ANN401 - as asyncpg's
        """Return the rows."""
        return [*await self._ask(sql, *values)]

    async def _ask(self, sql: str, *values: Any) -> Sequence[Row]:  # noqa: ANN401 - as asyncpg's
        costs, client = self._servers.costs, CLIENT.get()
        answer = next((each for known, each in _ANSWERS.items() if known in sql), None)
        if answer is None:
            raise RuntimeError(f"the simulated server does not know {sql}")
        rows, load = answer(self, sql, values)
        await client.use(costs.statement + load.client)
        await self._servers.serve(self._server, costs.query + load.server, commits=load.commits)
        load.done()
        return rows

    # --- what it answers --------------------------------------------------------------------------------------------

    def facts(self) -> Row:
        """Return what a glance asks first."""
        return {"version": 180000, "slots": _PLENTY, "is_usual": True, "may_identify": True, "tables": [*_TABLES]}

    def rows_of(self) -> Row:
        """Return what it asks then."""
        physical = f"{self._server}/{self._database}"
        seen = {"digest": digest_of(APPLIED), "physical": physical, "held": ""}
        return {**seen, "is_left": False, "is_marked": False, "marked_by": None}

    def end(self, sql: str) -> "_Load":
        """End a prepared transaction."""
        match = _GID.match(sql)
        verb, gid = match.groups() if match else ("", "")
        usage = self._servers.usage
        return _Load(
            server=self._servers.costs.ended, commits=True, done=lambda: usage.end(gid, commits=verb == "COMMIT")
        )

    def renew(self) -> "_Load":
        """Renew a lease."""
        self._servers.usage.renewals += 1
        return _Load(server=self._servers.costs.renewed, commits=True)

    def write(self, values: Sequence[Any]) -> tuple[list[Row], "_Load"]:
        """Write records of the journal."""
        ids, kinds, data = values[0], values[2], values[5]
        costs, usage = self._servers.costs, self._servers.usage
        usage.rows += len(ids)
        usage.row_bytes += sum(map(len, data))
        rows: list[Row] = [{"id": each, "seq": next(self._servers.numbers), "at": _NOW} for each in ids]
        begun = sum(kind == RecordKind.INTENT for kind in kinds)
        return rows, _Load(
            client=costs.row * len(ids) + costs.target * begun, server=costs.written + costs.stored * len(ids)
        )

    def send(self, values: Sequence[Any]) -> "_Load":
        """Take messages, and tell of them once they are on disk."""
        side, sessions, numbers, bodies, channels = values
        costs, usage, postal = self._servers.costs, self._servers.usage, self._servers.postal
        usage.messages += len(bodies)
        usage.message_bytes += sum(map(len, bodies))

        def deliver() -> None:
            for session, number, body in zip(sessions, numbers, bodies, strict=True):
                postal.messages[session, side].append((number, body))
                postal.first.setdefault((session, side), body)
            for channel in channels:
                for callback in postal.heard.get(channel, ()):
                    callback()

        count_of = len(bodies)
        return _Load(
            client=costs.message * count_of, server=costs.written + costs.stored * count_of, commits=True, done=deliver
        )

    def first(self, values: Sequence[Any]) -> Row:
        """Return the first message of one side of a session."""
        session, side = values
        return {"body": self._servers.postal.first.get((session, side))}

    def read(self, values: Sequence[Any]) -> tuple[list[Row], "_Load"]:
        """Return the messages that were not read yet; those before are forgotten."""
        sessions, seen, side = values
        rows: list[Row] = []
        for session, last in zip(sessions, seen, strict=True):
            box = self._servers.postal.messages.get((session, side), [])
            fresh = [each for each in box if each[0] > last]
            box[:] = fresh
            rows += [{"session": session, "seq": number, "body": body} for number, body in fresh]
        return rows, _Load(client=self._servers.costs.message * len(rows))


@dataclass(frozen=True, slots=True)
class _Load:
    client: float = 0.0
    server: float = 0.0
    commits: bool = False
    done: Callable[[], object] = lambda: None


_Answer = Callable[[Session, str, Sequence[Any]], tuple[Sequence[Row], _Load]]
_NO_LEASE: Final = {
    "epoch": 0,
    "owner": "",
    "host": "",
    "pid": 0,
    "machine": "",
    "started": "",
    "acquired_at": _NOW,
    "is_alive": False,
}
_ROOM: Final = {
    "free_connections": _PLENTY,
    "slots": _PLENTY,
    "locks_per_slot": 64,
    "free_prepared": _PLENTY,
    "locked_objects": 0,
}


def _always(*rows: Row, commits: bool = False) -> _Answer:
    return lambda _session, _sql, _values: (rows, _Load(commits=commits))


_ANSWERS: Final[dict[str, _Answer]] = {
    # The queue's.
    "count(*) = 3": _always({"has": True}),
    "WITH sent AS": lambda session, _sql, values: ([], session.send(values)),
    "side = $2 AND seq = 1": lambda session, _sql, values: ([session.first(values)], _Load()),
    "SELECT m.session, m.seq": lambda session, _sql, values: session.read(values),
    "INSERT INTO smooth_fleet_session": _always(commits=True),
    "UPDATE smooth_fleet_session": _always(commits=True),
    "DELETE FROM smooth_fleet_session": _always(commits=True),
    "SELECT id FROM smooth_fleet_session": lambda _session, _sql, values: (
        [{"id": each} for each in values[0]],
        _Load(),
    ),
    "LISTEN": _always(),
    # The journal's.
    "relname = 'smooth_journal_meta'": _always({"exists": True}),
    "max(version)": _always({"max": 2}),
    "INSERT INTO smooth_journal_lease": _always(),
    "FROM smooth_journal_lease WHERE deploy = $1 FOR UPDATE": _always(_NO_LEASE),
    "UPDATE smooth_journal_lease": _always(commits=True),
    "WITH ours AS": lambda session, _sql, values: session.write(values),
    "AS newest": _always(),
    "WHERE run_id = $1 ORDER BY seq": _always(),
    # Those of the databases.
    "server_version_num": lambda session, _sql, _values: ([session.facts()], _Load()),
    "string_agg(DISTINCT": lambda session, _sql, _values: ([session.rows_of()], _Load()),
    "SET LOCAL lock_timeout": _always(),
    QUESTION: _always({"answer": "yes"}),
    "free_connections": _always(_ROOM),
    "RENEW": lambda session, _sql, _values: ([{"epoch": 1}], session.renew()),
    " PREPARED ": lambda session, sql, _values: ([], session.end(sql)),
    "pg_blocking_pids": _always(),
    "pg_terminate_backend": _always(),
    "NOT EXISTS": _always({"gone": True}),
}
