"""Calls of a worker that wait for their answers, whatever ends it."""

import anyio
import anyio.lowlevel
import pytest

from smooth_migrations.protocol import Command, Done, Event, Fetch, Progress
from smooth_orchestrator.transport import WorkerLost
from smooth_orchestrator.transport.base import OnEvent
from smooth_orchestrator.transport.calling import Calling


class _Worker(Calling):
    """Is spoken for by its test."""

    async def call(self, command: Command, on_event: OnEvent) -> Event:
        return await self._call(command, on_event, anyio.lowlevel.checkpoint)

    def say(self, event: Event) -> None:
        self._answer(event)

    def end(self) -> None:
        self._lose()

    def _ended(self) -> WorkerLost:
        return WorkerLost("it has ended")


async def test_what_comes_after_the_end_is_not_heard_while_a_call_is_at_what_came_before() -> None:
    worker, heard = _Worker(), list[Event]()
    command = Fetch(id=worker.next_id(), database="", alias="", sql="")

    async def hear(event: Event) -> None:
        heard.append(event)
        worker.end()
        worker.say(Progress(id=command.id, statements=2))
        worker.say(Done(id=command.id))

    async with anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(WorkerLost, match="it has ended"):
                await worker.call(command, hear)

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        worker.say(Progress(id=command.id, statements=1))

    assert heard == [Progress(id=command.id, statements=1)]
