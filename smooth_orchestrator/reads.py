"""What the coordinator reads of PostgreSQL servers over asyncpg, beside the workers' sessions."""

import anyio
import asyncpg

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.run import TargetRun

__all__ = ["end_session", "free_connections", "watch_blockers"]

_CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.25
_BLOCKERS = """
    SELECT pid, coalesce(application_name, '') AS application_name,
           coalesce(extract(epoch FROM clock_timestamp() - query_start)::float8 * 1000, 0) AS query_age_ms
    FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids($1)) ORDER BY pid
"""
_OURS = "FROM pg_stat_activity WHERE pid = $1 AND application_name LIKE 'smooth:%'"
_ROOM = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS free
"""


async def watch_blockers(item: TargetRun) -> None:
    """Log who a target waits for, once a wait, until cancelled. Reads only; a server that stays away is no failure."""
    if item.target.asyncpg is None:
        return
    try:
        connection = await asyncpg.connect(**item.target.asyncpg, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return
    told: tuple[int, ...] = ()
    try:
        while True:
            await anyio.sleep(_POLL_S)
            if item.backend_pid is None:
                continue
            rows = await connection.fetch(_BLOCKERS, item.backend_pid)
            pids = tuple(row["pid"] for row in rows)
            if pids and pids != told:
                blockers = [dict(row) for row in rows]
                get_logger().warning(
                    EventName.LOCK_WAITING, database=item.name, blockers=blockers, backend_pid=item.backend_pid
                )
            told = pids
    except (OSError, asyncpg.PostgresError):
        return
    finally:
        connection.terminate()


async def end_session(item: TargetRun) -> ErrorInfo | None:
    """End what a dead worker left running on a server, and wait until its transaction is gone.

    A server notices a client's death only when it next speaks to it. Idempotent.
    """
    if item.target.asyncpg is None or item.backend_pid is None:
        return None
    try:
        with anyio.fail_after(_CONNECT_TIMEOUT_S):
            connection = await asyncpg.connect(**item.target.asyncpg)
            try:
                await connection.execute(f"SELECT pg_terminate_backend(pid) {_OURS}", item.backend_pid)
                while not await connection.fetchval(f"SELECT NOT EXISTS (SELECT {_OURS})", item.backend_pid):  # noqa: ASYNC110 - a server's state, not a task's
                    await anyio.sleep(_POLL_S / 10)
            finally:
                await connection.close()
    except (OSError, asyncpg.PostgresError, TimeoutError) as error:
        return ErrorInfo(type(error).__name__, f"the session {item.backend_pid} could not be ended: {error}")
    return None


async def free_connections(item: TargetRun) -> int | None:
    """Return how many more connections the target's server accepts, or None where nobody can tell."""
    if item.target.asyncpg is None:
        return None
    try:
        connection = await asyncpg.connect(**item.target.asyncpg, timeout=_CONNECT_TIMEOUT_S)
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return None
    try:
        return int(await connection.fetchval(_ROOM))
    finally:
        await connection.close()
