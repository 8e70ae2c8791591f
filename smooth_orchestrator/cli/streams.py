"""The process's own three streams, which a caller may have closed, and a reader may leave or a disk refuse."""

import os
import sys
from typing import Final, TextIO

__all__ = ["abandon", "let_go_of_readers_gone", "replace_closed"]

_MODES: Final = {"stdin": "r", "stdout": "w", "stderr": "w"}


def replace_closed() -> None:
    """Put the null device where a stream was closed before this program was started (`>&-`).

    Python has None there, and the next file or socket that is opened would get the number of the one that is missing.
    """
    for name, mode in _MODES.items():
        if getattr(sys, name) is None:
            # Lowest first, so that each gets the number that is its own.
            setattr(sys, name, open(os.devnull, mode))  # noqa: PTH123, SIM115 - as long-lived as the process


def abandon(stream: TextIO) -> None:
    """Let go of what a stream holds and cannot write: it would fail again at the exit, and change the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def let_go_of_readers_gone() -> None:
    """Let go of what could not be written to either stream: Python would try again, and exit with 120 for it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            abandon(stream)
