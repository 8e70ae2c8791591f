"""Signals that come before a run hears them itself: nothing has been begun, so the program may end anywhere."""

import os
import signal
from collections.abc import Callable
from typing import Final, NoReturn

from smooth_orchestrator.ending import ENDING

__all__ = ["end_if_interrupted", "hear_rotation", "hear_signals"]

_heard: Final[list[str]] = []


def hear_signals() -> None:
    """Have the signals that end a program raise KeyboardInterrupt from now on."""
    _heard.clear()
    for number in ENDING:
        # Under nohup a terminal that goes away is no reason to stop.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _raise_interrupt)


def hear_rotation(look_at_file: Callable[[int, object], None]) -> None:
    """Have a SIGHUP look after the log file, as it does of daemons, where it can tell of no terminal that goes away.

    Args:
        look_at_file: does that, or has it done soon.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and not _has_terminal():
        signal.signal(signal.SIGHUP, look_at_file)


def end_if_interrupted() -> None:
    """Raise again what was raised where nobody could be told, as in a callback of compiled code.

    Raises:
        KeyboardInterrupt: a signal has come.
    """
    if _heard:
        raise KeyboardInterrupt(_heard[0])


def _has_terminal() -> bool:
    try:
        # The system says that there is none by refusing this, whatever the three streams are; see tty(4).
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _raise_interrupt(number: int, _frame: object) -> NoReturn:
    name = signal.Signals(number).name
    _heard.append(name)
    raise KeyboardInterrupt(name)
