"""Whose process a command runs in: this program's own, or that of another one, in which it leaves no trace.

In another program's process the log goes to a listener alone, signals stay that program's, and a cancellation of the
task that has asked for the command does what a signal does: before the decision everything is taken back in order,
after it the commits come to their end. Only then is the task cancelled.
"""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, TypeVar

from smooth_orchestrator import logs
from smooth_orchestrator.secrets import Masker

__all__ = ["embedded", "masker_of_process", "own_process"]

_T = TypeVar("_T")

_own: Final[ContextVar[Masker | None]] = ContextVar("smooth_orchestrator_process", default=None)


@contextmanager
def own_process(masker: Masker) -> Iterator[None]:
    """Have commands take the process for their own, for the length of a context.

    Args:
        masker: of its log and its reports.
    """
    token = _own.set(masker)
    try:
        yield
    finally:
        _own.reset(token)


def masker_of_process() -> Masker | None:
    """Return what masks the secrets of the process, where that is our own."""
    return _own.get()


async def embedded(
    work: Callable[[], Awaitable[_T]], masker: Masker, *, on_event: logs.Listener | None, bound: tuple[str, str]
) -> _T:
    """Do a command's work, and return what it returns, in a process that is another program's unless `own_process`.

    Args:
        work: a coroutine function.
        masker: knows the secrets.
        on_event: called with every event.
        bound: the run's id and the deploy's name, for every event.

    Raises:
        Exception: what the work raises.
    """
    if masker_of_process() is not None:
        with logs.hearing(on_event) if on_event else nullcontext():
            return await work()
    import anyio  # noqa: PLC0415 - the command line imports this module for its help

    from smooth_orchestrator.signals import hearing_instead  # noqa: PLC0415 - as above

    interruption, done = anyio.Event(), anyio.Event()
    results: list[_T] = []
    errors: list[Exception] = []

    async def carry_out() -> None:
        try:
            with anyio.CancelScope(shield=True), logs.apart(masker), hearing_instead(interruption):
                logs.bind_run(*bound)
                with logs.hearing(_Told(on_event)) if on_event else nullcontext():
                    results.append(await work())
        except Exception as error:  # noqa: BLE001 - raised below, and not within a group
            errors.append(error)
        finally:
            done.set()

    async with anyio.create_task_group() as group:
        # A task of its own: a shield keeps off anyio's cancellation, and not that of asyncio.
        group.start_soon(carry_out)
        try:
            await done.wait()
        except anyio.get_cancelled_exc_class():
            interruption.set()
            raise
    for error in errors:
        raise error
    return results[0]


class _Told:
    """A listener of the caller's; where it fails, the caller's own log says so."""

    def __init__(self, on_event: logs.Listener) -> None:
        self._on_event = on_event
        self._has_failed = False

    def __call__(self, event: Mapping[str, Any]) -> None:
        if self._has_failed:
            return  # the caller's own log may come by here
        try:
            self._on_event(event)
        except Exception:
            self._has_failed = True
            logging.getLogger(__name__).exception("on_event has failed, and is told of nothing more")
            raise
