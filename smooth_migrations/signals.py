"""Signals that end a call."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from smooth_migrations.interruption import Interruption

__all__ = ["signals_asking"]


@contextmanager
def signals_asking(interruption: Interruption) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the call, whose undo they do not end. Signals belong to the main thread alone.

    Args:
        interruption: of the call.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, _frame: object) -> None:
        interruption.ask(f"ended by {signal.Signals(number).name}")
        interruption.strike()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
