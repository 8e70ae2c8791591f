"""Sessions that stand by: opened before the decision, so that nothing is left to be done after it but to say COMMIT.

Until then the leases are renewed by them, where something stands prepared for long.
"""

import socket
from contextlib import suppress
from typing import Final

import asyncpg

from smooth_orchestrator.run import Run, TargetRun

__all__ = ["CANNOT_CONNECT", "NOT_LET_IN", "leave", "session_on", "stand_by"]

CANNOT_CONNECT: Final = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError)
"""What is raised where a server is away, does not answer in time, or lets nobody in."""

NOT_LET_IN: Final = (
    # A project may take on another role than the one it connects as (OPTIONS["assume_role"]).
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidAuthorizationSpecificationError,
    socket.gaierror,
)
"""What is raised where this process may not do what a worker may, be that on another machine or with other rights."""

# Each is a file of this process, which may often have no more than 1,024 (Linux: the soft limit of RLIMIT_NOFILE).
_AT_MOST: Final = 256
_TIMEOUT_S: Final = 10.0
# A server that takes longer holds the decision up for all others; it is connected to afterwards.
_PATIENCE_S: Final = 1.0


async def stand_by(run: Run, item: TargetRun) -> None:
    """Open the session by which a prepared target will be ended; its worker has just closed the one it had.

    None where the plan counts a server's connections or these are too few, and none that does not come soon: then it
    is opened when it is needed. Idempotent.
    """
    is_counted = not item.has_standby or item.target.server in run.plan.servers
    if is_counted or item.target.asyncpg is None or sum(each.standby is not None for each in run.targets) >= _AT_MOST:
        return
    with suppress(*CANNOT_CONNECT):
        await session_on(item, within_s=_PATIENCE_S)


async def session_on(item: TargetRun, *, within_s: float = _TIMEOUT_S) -> asyncpg.Connection:
    """Return the session that stands by on a target's database, opened now where there is none. Idempotent.

    Whoever asks something of it has `at_standby`.

    Raises:
        OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError: it cannot be opened.
    """
    if item.standby is None:
        options = {**(item.target.asyncpg or {}), "timeout": within_s, "command_timeout": _TIMEOUT_S}
        item.standby = await asyncpg.connect(**options)
    return item.standby


def leave(item: TargetRun) -> None:
    """Close the session that stands by on a target's database, if there is one. Idempotent."""
    if item.standby is not None:
        item.standby.terminate()
        item.standby = None
