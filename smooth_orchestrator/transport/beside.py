"""Tasks that go on while the body beside them is cancelled: what is still said must be heard until the last word."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Beside", "beside"]


class Beside:
    """Such tasks; made by `beside` alone."""

    def __init__(self, group: "TaskGroup") -> None:
        self._group = group
        self._scopes: list[anyio.CancelScope] = []

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Begin one."""
        scope = anyio.CancelScope(shield=True)
        self._scopes.append(scope)
        self._group.start_soon(_run, scope, task)

    def end(self) -> None:
        """Cancel all of them. Repeating it does nothing."""
        for scope in self._scopes:
            scope.cancel()


@asynccontextmanager
async def beside() -> AsyncIterator[Beside]:
    """Have tasks beside the body of a context, which end with it; one that fails ends the body.

    What ends the body, or a task, comes out as it was raised, unless there are several errors.
    """
    try:
        async with anyio.create_task_group() as group:
            tasks = Beside(group)
            try:
                yield tasks
            finally:
                tasks.end()
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) > 1:
            raise
        error = errors.exceptions[0]
    else:
        return
    raise error  # outside of the handler, lest the group become its context


async def _run(scope: anyio.CancelScope, task: Callable[[], Awaitable[None]]) -> None:
    with scope:
        await task()
