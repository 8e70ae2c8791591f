"""Calls of a worker that is not waited for for ever: one that says nothing for too long is killed."""

import time

import anyio

from smooth_migrations.protocol import Command, Event
from smooth_migrations.protocol.failpoints import passing
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.transport import Worker, WorkerLost
from smooth_orchestrator.transport.base import OnEvent

__all__ = ["call_unless_silent", "silence_s"]

# What a worker needs beyond its longest statement.
_GRACE_S = 10.0


def silence_s(plan: Plan) -> float:
    """Return for how long a worker that migrates may say nothing, in seconds: it speaks after each statement."""
    return plan.statement_timeout_ms / 1000 + _GRACE_S


async def call_unless_silent(
    worker: Worker, command: Command, limit_s: float, on_event: OnEvent | None = None
) -> Event:
    """Send a command and return its final event.

    A target may wait for others of the same worker, so what counts is when the worker was last heard at all.

    Args:
        worker: who does it.
        command: with an id of its own.
        limit_s: for how long the worker may say nothing before it is killed.
        on_event: awaited with every event before the final one.

    Raises:
        WorkerLost: it ended, or was killed for its silence.
    """
    began_s = time.monotonic()
    silent = False
    answer: Event | WorkerLost
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            nonlocal silent
            while (left_s := max(began_s, worker.heard_s) + limit_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a deadline that moves
                await anyio.sleep(left_s)
            silent = True
            worker.kill()

        group.start_soon(watch)
        try:
            with passing(f"ask.{command.type}"):
                answer = await worker.call(command, on_event)
        except WorkerLost as error:
            answer = WorkerLost(f"{error.message}: it had said nothing for {limit_s:g} s") if silent else error
        group.cancel_scope.cancel()
    if isinstance(answer, WorkerLost):
        raise answer
    return answer
