"""Signals that come before a run hears them itself: nothing has been begun, so the program may end anywhere."""

import signal
from typing import Final, NoReturn

__all__ = ["ENDING", "end_if_interrupted", "hear_signals"]

ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_heard: Final[list[str]] = []


def hear_signals() -> None:
    """Have the signals that end a program raise KeyboardInterrupt from now on."""
    _heard.clear()
    for number in ENDING:
        # Under nohup a terminal that goes away is no reason to stop.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_interrupt)


def end_if_interrupted() -> None:
    """Raise again what was raised where nobody could be told, as in a callback of compiled code.

    Raises:
        KeyboardInterrupt: a signal has come.
    """
    if _heard:
        raise KeyboardInterrupt(_heard[0])


def _raise_interrupt(number: int, _frame: object) -> NoReturn:
    name = signal.Signals(number).name
    _heard.append(name)
    raise KeyboardInterrupt(name)
