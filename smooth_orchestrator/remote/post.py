"""Messages between a coordinator and the sessions of its workers, by way of a PostgreSQL database.

Each side numbers what it sends, and what stands there already is not written again: a message whose answer was lost is
sent again without harm, and each is received once, in order. So what was sent last is sent again after each loss of the
connection: a server that crashed may have lost what it had committed (`synchronous_commit = off`, or a standby that
took its place), and a message that is missing would keep all later ones from being received. NOTIFY tells of new ones;
behind a pooler that lets it get lost they are found by looking.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final, Self, TypeVar

import anyio
import asyncpg

from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.transport.beside import beside

__all__ = ["GONE_S", "Inbox", "Post", "PostError", "Side"]

GONE_S: Final = 15.0
"""How long, in seconds, one side may say nothing before the other takes it for gone."""

_BEAT_S: Final = 3.0
# Without a NOTIFY nobody waits longer than this for a message.
_LOOK_S: Final = 0.5
_TIMEOUT_S: Final = 10.0
# How long a server may be away when it is called for the first time: an address may be wrong.
_FIRST_S: Final = 30.0
_PAUSE_S: Final = 0.2
# How long what nobody waits for stays with its sender, so that what comes soon after it goes along.
_LINGER_S: Final = 0.02
# How long what was written is kept, to be sent again. PostgreSQL's manual, "Asynchronous Commit": a crash may lose what
# was committed within the last three `wal_writer_delay`, 0.6 s unless set; a standby may be further behind.
_KEPT_S: Final = 10.0
_LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    # What passes by itself, or once somebody has made room: deadlocks, locks, memory, connections, a full disk.
    asyncpg.TransactionRollbackError,
    asyncpg.LockNotAvailableError,
    asyncpg.InsufficientResourcesError,
)
# Which two programs that begin at once do not create twice. The number is arbitrary, and this program's own.
_SCHEMA: Final = """
    SELECT pg_advisory_xact_lock(7340921066);
    CREATE TABLE IF NOT EXISTS smooth_fleet_session (
        id text PRIMARY KEY,
        project text NOT NULL,
        job_id bigint,
        renewed_at timestamptz NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE IF NOT EXISTS smooth_fleet_message (
        session text NOT NULL REFERENCES smooth_fleet_session ON DELETE CASCADE,
        side text NOT NULL,
        seq bigint NOT NULL,
        body text NOT NULL,
        PRIMARY KEY (session, side, seq));
    CREATE TABLE IF NOT EXISTS smooth_fleet_machine (
        worker_id bigint PRIMARY KEY,
        name text NOT NULL,
        queues text[] NOT NULL,
        concurrency int NOT NULL,
        version text NOT NULL,
        started_at timestamptz NOT NULL DEFAULT clock_timestamp());
"""
# Whoever may make no tables may use those that are there.
_HAS_TABLES: Final = "SELECT count(*) = 3 FROM unnest($1::text[]) AS t (name) WHERE to_regclass(name) IS NOT NULL"
_TABLES: Final = ("smooth_fleet_session", "smooth_fleet_message", "smooth_fleet_machine")
_SEND: Final = """
    WITH sent AS (
        INSERT INTO smooth_fleet_message (session, side, seq, body)
        SELECT m.session, $1, m.seq, m.body
        FROM unnest($2::text[], $3::bigint[], $4::text[]) AS m (session, seq, body)
        JOIN smooth_fleet_session s ON s.id = m.session
        FOR KEY SHARE OF s
        ON CONFLICT DO NOTHING)
    SELECT pg_notify(channel, '') FROM unnest($5::text[]) AS channel
"""
_READ: Final = """
    SELECT m.session, m.seq, m.body
    FROM smooth_fleet_message m JOIN unnest($1::text[], $2::bigint[]) AS known (session, seq) USING (session)
    WHERE m.side = $3 AND m.seq > known.seq ORDER BY m.session, m.seq
"""
_FIRST: Final = "SELECT body FROM smooth_fleet_message WHERE session = $1 AND side = $2 AND seq = 1"
_OPEN: Final = "INSERT INTO smooth_fleet_session (id, project) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_RENEW: Final = "UPDATE smooth_fleet_session SET renewed_at = clock_timestamp() WHERE id = ANY($1::text[])"
_CLOSE: Final = "DELETE FROM smooth_fleet_session WHERE id = $1"
_LIVING: Final = """
    SELECT id FROM smooth_fleet_session
    WHERE id = ANY($1::text[]) AND renewed_at > clock_timestamp() - make_interval(secs => $2)
"""

_T = TypeVar("_T")
_Connection = Any  # of asyncpg, which says nothing of its types at run time


class Side(StrEnum):
    """Who sends a message."""

    COORDINATOR = "coordinator"
    WORKER = "worker"

    @property
    def other(self) -> "Side":
        """Who receives it."""
        return Side.WORKER if self is Side.COORDINATOR else Side.COORDINATOR


class PostError(WorkerError):
    """The queue's database cannot be reached, or does not do what is asked."""

    code = "queue_unreachable"


@dataclass(slots=True)
class Inbox:
    """What one side has to receive, and to send, in one session.

    Args:
        session: its name.
        take: called with each message, in order; it raises nothing, for that would be everybody's failure.
        seen: the number of the last one.
        sent: how many were sent.
        waiting: messages that are still to be sent, by their numbers.
        written: those that were sent a short while ago, with when that was.
        idle: set while none waits.
    """

    session: str
    take: Callable[[str], None]
    seen: int = 0
    sent: int = 0
    waiting: dict[int, str] = field(default_factory=dict)
    written: dict[int, tuple[float, str]] = field(default_factory=dict)
    idle: anyio.Event = field(default_factory=anyio.Event)

    def send(self, body: str) -> None:
        """Have a message wait, after all others."""
        self.sent += 1
        self._wait({self.sent: body})

    def send_again(self) -> None:
        """Have what was written a short while ago wait once more."""
        self._wait({number: body for number, (_when, body) in self.written.items()})
        self.written.clear()

    def note(self, letters: Mapping[int, str], now_s: float) -> None:
        """Take note that these were written."""
        for number in [number for number, (when_s, _body) in self.written.items() if when_s < now_s - _KEPT_S]:
            del self.written[number]
        for number, body in letters.items():
            del self.waiting[number]
            self.written[number] = (now_s, body)
        if not self.waiting:
            self.idle.set()

    def _wait(self, letters: Mapping[int, str]) -> None:
        if letters and not self.waiting:
            self.idle = anyio.Event()
        self.waiting |= letters


class Post:
    """One process's connection to the queue's database, with the sessions it takes part in.

    Args:
        url: of the database. Secret.
        side: which side it speaks for.
        patience_s: how long a server may be away, in seconds.
    """

    def __init__(self, url: str, side: Side, *, patience_s: float = 30.0) -> None:
        self._url = url
        self._side = side
        self._patience_s = patience_s
        self._connection: _Connection | None = None
        self._lock = anyio.Lock()
        self._news = anyio.Event()
        self._mail = anyio.Event()
        self._urgent = anyio.Event()
        self._inboxes: dict[str, Inbox] = {}
        self._parted: set[str] = set()
        self._parting = anyio.Event()
        self.failure: PostError | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Self]:
        """Connect for the length of a context, making the tables that are not there.

        Raises:
            PostError: the database cannot be reached, or no tables can be made there.
        """
        await self.run(_make_tables, patience_s=min(self._patience_s, _FIRST_S))
        works = [self._receive, self._deliver, self._forget, *([self._renew] if self._side is Side.COORDINATOR else [])]
        try:
            async with beside() as tasks:
                for work in works:
                    tasks.start(partial(self._keep, work))
                yield self
        finally:
            if self._connection is not None:
                self._connection.terminate()

    async def begin(self, session: str, project: str) -> None:
        """Begin a session, before anything is sent in it. Repeating it does nothing."""
        await self.run(lambda connection: connection.execute(_OPEN, session, project))

    async def end(self, session: str) -> None:
        """End a session, and forget what was sent in it. Repeating it does nothing."""
        self.leave(session)
        await self.run(lambda connection: connection.execute(_CLOSE, session))

    async def join(self, session: str, take: Callable[[str], None]) -> None:
        """Receive from now on what the other side sends in a session."""
        self._inboxes[session] = Inbox(session, take)
        await self.run(lambda connection: self._listen(connection, session))
        self._news.set()

    def leave(self, session: str) -> None:
        """Receive nothing more of a session; what is still to be sent is not sent. Repeating it does nothing."""
        if self._inboxes.pop(session, None) is not None:
            self._parted.add(session)
            self._parting.set()

    def send(self, session: str, body: str, *, is_urgent: bool = True) -> None:
        """Send a message, after those that were sent before; nothing where the session was left.

        Args:
            session: in which.
            body: what it says.
            is_urgent: whether somebody waits for it. What is not may go along with what is sent a moment later.
        """
        if (inbox := self._inboxes.get(session)) is not None:
            inbox.send(body)
            self._mail.set()
            if is_urgent:
                self._urgent.set()

    async def sent(self, session: str) -> None:
        """Wait until everything of a session is written down, for ever where its database stays away.

        Returns at once where nothing is written any more.
        """
        if (inbox := self._inboxes.get(session)) is not None and inbox.waiting and self.failure is None:
            await inbox.idle.wait()

    async def first(self, session: str) -> str | None:
        """Return what was written down as this side's first message of a session, which another one may have sent."""
        body: str | None = await self.run(lambda connection: connection.fetchval(_FIRST, session, str(self._side)))
        return body

    async def living(self, sessions: Sequence[str]) -> frozenset[str]:
        """Return which of these sessions have a coordinator that lives."""
        rows = await self.run(lambda connection: connection.fetch(_LIVING, [*sessions], GONE_S))
        return frozenset(row["id"] for row in rows)

    async def run(self, work: Callable[[_Connection], Awaitable[_T]], *, patience_s: float | None = None) -> _T:
        """Do work that may be repeated, while the server is away and patience lasts.

        Args:
            work: what to do, with a connection.
            patience_s: another patience than usual, in seconds.

        Raises:
            PostError: the server stays away, or refuses it.
        """
        deadline_s = anyio.current_time() + (self._patience_s if patience_s is None else patience_s)
        while True:
            try:
                async with self._lock:
                    return await work(await self._connected())
            except (asyncpg.PostgresError, ValueError, *_LOST) as error:
                if not isinstance(error, _LOST) or anyio.current_time() > deadline_s:
                    words = str(error) or "no answer in time"
                    raise PostError(f"the queue's database: {words}", hint="see `queue_url` in the plan") from error
                self._drop()
            await anyio.sleep(_PAUSE_S)

    async def _connected(self) -> _Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=_TIMEOUT_S,
                command_timeout=_TIMEOUT_S,
                statement_cache_size=0,  # a pooler may give the next statement to another session
                server_settings={"application_name": f"smooth-orchestrate {self._side}"},
            )
            for session, inbox in tuple(self._inboxes.items()):
                await self._listen(self._connection, session)
                inbox.send_again()
            self._news.set()
            self._mail.set()
            self._urgent.set()
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _listen(self, connection: _Connection, session: str) -> None:
        await connection.add_listener(_channel(session, self._side), self._hear)

    async def _unlisten(self, connection: _Connection) -> None:
        while self._parted:
            if (session := self._parted.pop()) not in self._inboxes:
                # Nothing where the connection is a new one.
                await connection.remove_listener(_channel(session, self._side), self._hear)

    def _hear(self, *_notification: object) -> None:
        self._news.set()

    async def _keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something again and again; a database that stays away ends all sessions."""
        try:
            while True:
                await work()
        except PostError as error:
            self.failure = error
            for inbox in self._inboxes.values():
                inbox.idle.set()

    async def _receive(self) -> None:
        with anyio.move_on_after(_LOOK_S):
            await self._news.wait()
        self._news = anyio.Event()
        seen = {inbox.session: inbox.seen for inbox in self._inboxes.values()}
        if not seen:
            return
        rows: Sequence[Mapping[str, Any]] = await self.run(
            lambda connection: connection.fetch(_READ, [*seen], [*seen.values()], str(self._side.other))
        )
        for row in rows:
            inbox = self._inboxes.get(row["session"])
            if inbox is not None and row["seq"] == inbox.seen + 1:
                inbox.seen = row["seq"]
                inbox.take(row["body"])

    async def _forget(self) -> None:
        """Listen no more in sessions that were left: for a machine that stays they would become ever more."""
        await self._parting.wait()
        self._parting = anyio.Event()
        # Nobody needs it: a queue that is away is a failure for those who ask something of it.
        with suppress(PostError):
            await self.run(self._unlisten)

    async def _deliver(self) -> None:
        """Write down what waits in all sessions: one statement, and one commit, however many there are."""
        await self._mail.wait()
        with anyio.move_on_after(_LINGER_S):
            await self._urgent.wait()
        self._mail, self._urgent = anyio.Event(), anyio.Event()
        letters = [(inbox, dict(inbox.waiting)) for inbox in self._inboxes.values() if inbox.waiting]
        if not letters:
            return
        await self._send(letters)
        for inbox, bodies in letters:
            inbox.note(bodies, anyio.current_time())

    async def _send(self, letters: Sequence[tuple[Inbox, Mapping[int, str]]]) -> None:
        messages = [(inbox.session, number, body) for inbox, bodies in letters for number, body in bodies.items()]
        columns = [[*column] for column in zip(*messages, strict=True)]
        channels = [_channel(inbox.session, self._side.other) for inbox, _bodies in letters]
        # What was sent in a session that the other side has ended meanwhile goes nowhere.
        await self.run(lambda connection: connection.fetch(_SEND, str(self._side), *columns, channels))

    async def _renew(self) -> None:
        await anyio.sleep(_BEAT_S)
        if self._inboxes:
            await self.run(lambda connection: connection.execute(_RENEW, [*self._inboxes]))


async def _make_tables(connection: _Connection) -> None:
    if not await connection.fetchval(_HAS_TABLES, [*_TABLES]):
        await connection.execute(_SCHEMA)


def _channel(session: str, side: Side) -> str:
    return f"smooth_fleet:{session}:{side}"
