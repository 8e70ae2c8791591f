"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

__all__ = ["replaced", "run_simulated"]

_Result = TypeVar("_Result")


class _Jumping(selectors.SelectSelector):
    """Waits for nothing: what it would have waited for has passed.

    Attributes:
        now_s: the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, else at the time at which something will be."""
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("everybody waits, and nothing will happen any more")
        if not ready and timeout:
            self.now_s += timeout
        return ready


class _SimulatedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the simulated time."""
        return self._jumping.now_s


@contextmanager
def replaced(owner: object, name: str, other: object) -> Iterator[None]:
    """Have another object by an attribute's name, for the length of a context."""
    before = getattr(owner, name)
    setattr(owner, name, other)
    try:
        yield
    finally:
        setattr(owner, name, before)


def run_simulated(work: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run a coroutine function to its end, with `time.monotonic` simulated too; the clock begins at zero.

    Raises:
        RuntimeError: everybody waits for somebody else.
    """
    loops: list[_SimulatedLoop] = []

    def make() -> _SimulatedLoop:
        loops.append(_SimulatedLoop())
        return loops[0]

    with replaced(time, "monotonic", lambda: loops[0].time() if loops else 0.0):
        return anyio.run(work, backend="asyncio", backend_options={"loop_factory": make})
