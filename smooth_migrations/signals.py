"""Signals that end a call, heard also while the main thread waits in a driver's C code.

The interpreter runs a signal's handler in the main thread when that comes back to Python, which a driver may keep from
it for as long as a statement runs (mysqlclient, sqlite3). What C does at once is to write the signal's number to a file
descriptor (`signal.set_wakeup_fd`), where a thread reads it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from smooth_migrations.interruption import Interruption

__all__ = ["signals_asking"]

_ENDING = (signal.SIGINT, signal.SIGTERM)
_STOP = 0  # no signal has this number


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
        interruption.ask(_reason(number))
        interruption.strike()

    previous = {number: signal.signal(number, ask) for number in _ENDING}
    try:
        with _listening(interruption):
            yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _reason(number: int) -> str:
    return f"ended by {signal.Signals(number).name}"


@contextmanager
def _listening(interruption: Interruption) -> Iterator[None]:
    _keep_from_forks()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while (number := os.read(reading, 1)[0]) != _STOP:
            if number in _ENDING:
                interruption.ask(_reason(number))

    thread = threading.Thread(target=listen, name="smooth-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        # No end of file: a process that a migration has forked may have the pipe too.
        os.write(writing, bytes([_STOP]))
        thread.join()
        os.close(writing)
        os.close(reading)


@cache
def _keep_from_forks() -> None:
    # Otherwise a signal to a process that a migration forks, as multiprocessing does, would be heard here.
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
