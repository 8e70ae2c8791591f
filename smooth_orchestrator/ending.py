"""The signals that end a program, known without what runs a command: help and a bad plan need no event loop."""

import signal
from typing import Final

__all__ = ["ENDING", "hold_signals_back"]

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a program that does not hear it: Ctrl-C, a request, a terminal that goes away."""


def hold_signals_back() -> None:
    """Let none of them end this process any more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    # The mask is this thread's, and the system gives a signal to any thread that takes it.
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
