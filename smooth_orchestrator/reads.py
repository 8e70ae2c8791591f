"""What the coordinator reads of PostgreSQL servers: over asyncpg, or through a worker where that cannot connect."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg

from smooth_migrations.protocol import ErrorInfo, Fetch, Rows
from smooth_migrations.protocol.failpoints import passing
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName, blocker_text
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.run import TargetRun

if TYPE_CHECKING:
    _Connection = asyncpg.Connection[asyncpg.Record]

__all__ = ["Read", "Unreadable", "end_session", "reading", "watch_blockers"]

_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.25
_BLOCKERS = """
    SELECT pid, coalesce(application_name, '') AS application_name,
           coalesce(extract(epoch FROM clock_timestamp() - query_start)::float8 * 1000, 0) AS query_age_ms
    FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids({pid:d})) ORDER BY pid
"""
# A process id alone may by now be somebody else's.
_OURS = "FROM pg_stat_activity WHERE pid = $1 AND extract(epoch FROM backend_start)::text = $2"

Read = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]


class Unreadable(Exception):  # noqa: N818 - named by what it says of the server
    """A server could not be asked; nothing follows from that for the run."""


@asynccontextmanager
async def reading(item: TargetRun, fleet: Fleet) -> AsyncIterator[Read]:
    """Open a way to read of a target's server, for the length of a context.

    Args:
        item: a PostgreSQL target.
        fleet: whose worker reads where the connection's options mean nothing to asyncpg.

    Raises:
        Unreadable: it cannot be reached; also from the function that is yielded.
    """
    if item.target.asyncpg is None:
        yield _through_worker(item, fleet)
        return
    try:
        connection = await _connected(item.target.asyncpg)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
        raise Unreadable(str(error)) from error

    async def read(sql: str) -> Sequence[Mapping[str, Any]]:
        try:
            return [dict(row) for row in await connection.fetch(sql)]
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Unreadable(str(error)) from error

    try:
        yield read
    finally:
        connection.terminate()


async def _connected(arguments: Mapping[str, Any]) -> "_Connection":
    """Connect in a task of its own, which one who is cancelled meanwhile leaves to come to its end.

    asyncpg, cancelled between the connection and the question whether it is encrypted, leaves a future behind that
    fails and that nobody asks, and asyncio logs an error (0.32, `connect_utils._create_ssl_connection`).
    """
    connecting = asyncio.create_task(asyncpg.connect(**arguments, timeout=_CONNECT_TIMEOUT_S))
    try:
        return await asyncio.shield(connecting)
    except asyncio.CancelledError:
        connecting.add_done_callback(_let_go)
        raise


def _let_go(connecting: "asyncio.Task[_Connection]") -> None:
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


def _through_worker(item: TargetRun, fleet: Fleet) -> Read:
    async def read(sql: str) -> Sequence[Mapping[str, Any]]:
        worker = fleet.serving(item.target)
        command = Fetch(id=worker.next_id(), database=item.name, alias=item.target.alias, sql=sql)
        try:
            answer = await worker.call(command)
        except WorkerError as error:
            raise Unreadable(error.message) from error
        if not isinstance(answer, Rows):
            raise Unreadable("the worker could not read")
        return answer.rows

    return read


async def watch_blockers(item: TargetRun, fleet: Fleet) -> None:
    """Log who a target waits for, once a wait, and when it waits no more, until cancelled.

    Reads only; a server that stays away is no failure.
    """
    if item.target.vendor != "postgresql":
        return
    told: tuple[int, ...] = ()
    since_s = 0.0
    try:
        # Most targets are done by then, and need no session for this.
        await anyio.sleep(_POLL_S)
        async with reading(item, fleet) as read:
            while True:
                rows = await read(_BLOCKERS.format(pid=item.backend_pid)) if item.backend_pid is not None else ()
                pids = tuple(row["pid"] for row in rows)
                if pids and not told:
                    since_s = time.monotonic()
                if told and not pids:
                    waited_ms = round((time.monotonic() - since_s) * 1000, 1)
                    get_logger().info(
                        EventName.LOCK_WAITED, database=item.name, waited_ms=waited_ms, backend_pid=item.backend_pid
                    )
                if pids and pids != told:
                    item.blockers = tuple(map(blocker_text, rows))
                    get_logger().warning(
                        EventName.LOCK_WAITING,
                        database=item.name,
                        blockers=[*rows],
                        backend_pid=item.backend_pid,
                    )
                told = pids
                await anyio.sleep(_POLL_S)
    except Unreadable:
        return


async def end_session(item: TargetRun) -> ErrorInfo | None:
    """End what a dead worker left running on a server, and wait until its transaction is gone.

    A server notices a client's death only when it next speaks to it. A worker that is lost may be frozen and live on:
    its lease is given back for it, and whatever it does from then on is refused. Idempotent.
    """
    if item.target.asyncpg is None or item.backend_pid is None:
        return None
    session = (item.backend_pid, item.backend_start)
    try:
        with anyio.fail_after(_CONNECT_TIMEOUT_S):
            connection = await asyncpg.connect(**item.target.asyncpg)
            try:
                with passing("end_session"):
                    await connection.execute(f"SELECT pg_terminate_backend(pid) {_OURS}", *session)
                    while not await connection.fetchval(f"SELECT NOT EXISTS (SELECT {_OURS})", *session):  # noqa: ASYNC110 - a server's state, not a task's
                        await anyio.sleep(_POLL_S / 10)
                    if item.release:
                        # Where it cannot be given back it expires, once nobody renews it.
                        with suppress(asyncpg.PostgresError):
                            await connection.execute(item.release)
            finally:
                await connection.close()
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        return ErrorInfo(type(error).__name__, f"the session {item.backend_pid} could not be ended: {error}")
    return None
