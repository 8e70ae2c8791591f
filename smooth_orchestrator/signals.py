"""SIGINT, SIGTERM and, of a terminal, SIGHUP: the end of a run before its decision, nothing after it.

Where the process is another program's they are left to that, and its own interruption is obeyed in their place.
"""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar

import anyio

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.ending import ENDING, hold_signals_back
from smooth_orchestrator.errors import Interrupted, SettlingInterrupted
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger, look_at_file
from smooth_orchestrator.run import Run

__all__ = ["Signals", "hearing_instead", "hearing_signals"]

_CANCELLATION = "cancellation"

_instead: ContextVar[anyio.Event | None] = ContextVar("smooth_orchestrator_interruption", default=None)


@contextmanager
def hearing_instead(interruption: anyio.Event) -> Iterator[None]:
    """Have commands of this task, and of those it starts, obey an event, and leave the process's signals alone."""
    token = _instead.set(interruption)
    try:
        yield
    finally:
        _instead.reset(token)


class Signals:
    """What a signal ends: the command as a whole until a run has begun to change something, from then on the run.

    While `is_settling`, databases may have changed by an earlier run's decision, and it is not known which.
    """

    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope
        self._run: Run | None = None
        self.name: str | None = None
        self.is_settling = False

    def end_run(self, run: Run) -> None:
        """Let a signal fail this run from now on, which is then taken back in order."""
        self._run = run

    def take(self, name: str) -> None:
        """Obey a signal of this name."""
        get_logger().warning(EventName.RUN_INTERRUPTED, signal=name)
        if self._run is None:
            self.name = self.name or name
            self._scope.cancel()
        else:
            self._run.interrupt(ErrorInfo(Interrupted.code, f"interrupted by {name}"))


@asynccontextmanager
async def hearing_signals() -> AsyncIterator[Signals]:
    """Hear signals for the length of a context, and none from its end on: what is left is to say how it went.

    Raises:
        Interrupted: one came before a run had begun to change anything.
        SettlingInterrupted: one came while earlier runs were settled.
    """
    try:
        async with anyio.create_task_group() as group:
            # Within the group: a second signal is still heard while what the first one has cancelled is stopped.
            with anyio.CancelScope() as scope:
                signals = Signals(scope)
                await group.start(_listen, signals)
                try:
                    yield signals
                finally:
                    _hold_back()
            group.cancel_scope.cancel()
    finally:
        _hold_back()
    if signals.name is not None:
        if signals.is_settling:
            raise SettlingInterrupted(
                f"interrupted by {signals.name} while an earlier run was settled", hint="let `recover` come to its end"
            )
        raise Interrupted(f"interrupted by {signals.name}")


def _hold_back() -> None:
    """Let no signal end this process any more, if it is our own."""
    if _instead.get() is None:
        hold_signals_back()


async def _listen(signals: Signals, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    if (interruption := _instead.get()) is not None:
        task_status.started()
        await interruption.wait()
        signals.take(_CANCELLATION)
        return
    # Under nohup a terminal that goes away is no reason to stop; nor is, elsewhere, a log file that was moved.
    is_deaf = signal.getsignal(signal.SIGHUP) in {signal.SIG_IGN, look_at_file}
    with anyio.open_signal_receiver(*(ENDING[:2] if is_deaf else ENDING)) as received:
        task_status.started()
        async for number in received:
            signals.take(signal.Signals(number).name)
