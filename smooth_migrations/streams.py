"""The process's standard output and standard error, of which nothing may change what the exit code says."""

import os
import sys
from contextlib import suppress
from typing import Final

__all__ = ["UNWRITABLE", "let_go"]

UNWRITABLE: Final = (OSError, ValueError, AttributeError)
"""What writing raises: a reader is gone or a disk full, the stream is closed, there is none."""


def let_go() -> None:
    """Let go of what the streams hold and cannot write: it would fail again at the exit, with exit code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except UNWRITABLE:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            with suppress(*UNWRITABLE):
                os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
