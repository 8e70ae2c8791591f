"""What workers have in common wherever they run: calls that wait for their answers, and an end that ends them all."""

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from smooth_migrations.protocol import Command, Event
from smooth_orchestrator.transport.base import OnEvent, WorkerLost

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectSendStream

__all__ = ["Calling"]


class Calling(ABC):
    """A worker, as far as it is about its pending calls. Those who inherit send commands, and hear of its end."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._pending: dict[int, MemoryObjectSendStream[Event]] = {}
        self._lost = anyio.Event()

    @property
    def is_lost(self) -> bool:
        """Whether it has ended."""
        return self._lost.is_set()

    @property
    def loss(self) -> WorkerLost | None:
        """How it has ended; None as long as it lives."""
        return self._ended() if self.is_lost else None

    def next_id(self) -> int:
        """Return an id for a command that this worker has not had before."""
        return next(self._ids)

    async def lost(self) -> WorkerLost:
        """Wait until the worker has ended, and return how."""
        await self._lost.wait()
        return self._ended()

    async def _call(self, command: Command, on_event: OnEvent | None, send: Callable[[], Awaitable[None]]) -> Event:
        """Send a command and return its final event; see `Worker.call` otherwise."""
        events_in, events = anyio.create_memory_object_stream[Event](math.inf)
        with events_in, events:
            if not self.is_lost:
                self._pending[command.id] = events_in
                try:
                    await send()
                    async for event in events:
                        if event.final:
                            return event
                        if on_event is not None:
                            await on_event(event)
                finally:
                    del self._pending[command.id]
        raise self._ended()

    def _answer(self, event: Event) -> None:
        """Pass an event to the call that waits for it, if one does; what comes after the end is nobody's."""
        if event.id in self._pending and not self.is_lost:
            self._pending[event.id].send_nowait(event)

    def _lose(self) -> None:
        """End what waits for the worker, which has ended. Repeating it does nothing."""
        self._lost.set()
        for events in self._pending.values():
            events.close()

    @abstractmethod
    def _ended(self) -> WorkerLost:
        """Return which worker has ended, and how."""
