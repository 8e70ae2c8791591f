"""The leases of databases whose transactions stand prepared: the coordinator keeps them until it has ended those.

Its worker may be dead, and the database has no session any more where its server has few connections; else the one that
stands by renews it. A coordinator that sleeps renews nothing, and one that is gone is not waited for.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final

import anyio
import asyncpg

from smooth_migrations.protocol import ErrorInfo, Fetch, Rows
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.standby import CANNOT_CONNECT, NOT_LET_IN, leave

__all__ = ["keep_leases"]

_BEAT_S: Final = 5.0
# A server that does not answer in this time lets the others of its targets wait for the next round.
_TIMEOUT_S: Final = 5.0


async def keep_leases(run: Run, fleet: Fleet) -> None:
    """Renew the leases of what stands prepared, over a few connections to each server, until cancelled.

    A lease that is another's by now, and with it the transaction, fails the run unless that has decided.
    """
    while True:
        await anyio.sleep(_BEAT_S)
        servers: dict[str, list[TargetRun]] = defaultdict(list)
        for item in run.targets:
            if _is_kept(item):
                servers[item.target.server].append(item)
        async with anyio.create_task_group() as group:
            for items in servers.values():
                group.start_soon(_keep, run, fleet, items)


def _is_kept(item: TargetRun) -> bool:
    return item.is_prepared and item.gid is not None and bool(item.renewal)


async def _keep(run: Run, fleet: Fleet, items: Sequence[TargetRun]) -> None:
    async with anyio.create_task_group() as group:

        async def keep(item: TargetRun) -> None:
            async with nullcontext() if item.standby else fleet.room_beside(item.target):
                if not _is_kept(item):
                    return  # it has been ended meanwhile
                try:
                    is_ours = await _renew(fleet, item)
                except (OSError, TimeoutError):
                    group.cancel_scope.cancel()
                    return
                except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, WorkerError):
                    return  # nobody knows; the next round asks again
                if not is_ours and _is_kept(item) and not run.decided:
                    run.fail(ErrorInfo("LeaseLost", f"the lease of {item.name} went to another run"), item.name)

        for item in items:
            group.start_soon(keep, item)


async def _renew(fleet: Fleet, item: TargetRun) -> bool:
    """Renew one lease; return whether it was still ours. Locks its row for a moment; repeating it does no harm."""
    if item.target.asyncpg is None:
        return await _through_worker(fleet, item)
    try:
        is_ours = await _through_standby(item)
        return await _through_session(item.target.asyncpg, item) if is_ours is None else is_ours
    except NOT_LET_IN:
        return await _through_worker(fleet, item)


async def _through_standby(item: TargetRun) -> bool | None:
    """Renew a lease by the session that stands by; None where there is none, or it was lost."""
    async with item.at_standby:
        if item.standby is None:
            return None
        try:
            return await item.standby.fetchval(item.renewal) is not None
        except NOT_LET_IN:
            raise
        except CANNOT_CONNECT:
            leave(item)
            return None


async def _through_session(options: Mapping[str, Any], item: TargetRun) -> bool:
    connection = await asyncpg.connect(**options, timeout=_TIMEOUT_S, command_timeout=_TIMEOUT_S)
    try:
        return await connection.fetchval(item.renewal) is not None
    finally:
        connection.terminate()


async def _through_worker(fleet: Fleet, item: TargetRun) -> bool:
    worker = fleet.serving(item.target)
    command = Fetch(id=worker.next_id(), database=item.name, alias=item.target.alias, sql=item.renewal)
    # It may be at work on another target for long, and what is behind this one must not wait for that.
    with anyio.move_on_after(_TIMEOUT_S):
        answer = await worker.call(command)
        return not isinstance(answer, Rows) or bool(answer.rows)
    return True
