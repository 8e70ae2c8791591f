"""Futures that fail after nobody waits for them any more, which asyncio tells of: of one kind that is no news."""

import asyncio
from typing import Any

__all__ = ["overlook_lost_connections"]


def overlook_lost_connections() -> None:
    """Say nothing, in the loop that runs, of a connection that was lost after its opening had been given up.

    asyncpg leaves such a future behind when it is cancelled before a server has said whether it speaks TLS: a watcher
    is cancelled whenever what it watches over is done. The loop must be our own.
    """
    asyncio.get_running_loop().set_exception_handler(_tell)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    future = context.get("future")
    is_ours = future is None or isinstance(future, asyncio.Task)
    if is_ours or not isinstance(context.get("exception"), OSError):
        loop.default_exception_handler(context)
