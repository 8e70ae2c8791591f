"""What a person at a terminal sees of a command at work: a table that is drawn over and over, and lines above it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from smooth_orchestrator.logs import hearing
from smooth_orchestrator.progress.heard import Heard
from smooth_orchestrator.progress.window import Window

__all__ = ["can_show", "showing"]

_OBEY_NOTHING: Final = {"", "dumb", "unknown"}


def can_show(stream: TextIO) -> bool:
    """Tell whether a table can be drawn on a stream, and somebody may look at it.

    It must be a terminal that obeys (`TERM`) and knows all letters, and no build server's (`CI`).
    """
    obeys = os.environ.get("TERM", "") not in _OBEY_NOTHING and not os.environ.get("CI")
    return stream.isatty() and obeys and (stream.encoding or "").lower().replace("-", "") == "utf8"


@contextmanager
def showing(command: str, stream: TextIO) -> Iterator[Window]:
    """Show what the log tells of a command, for the length of a context, and yield what lines above it go through.

    In the end the table makes room for the report, or stays where that goes elsewhere.

    Args:
        command: its name.
        stream: the terminal.
    """
    heard = Heard(command)

    def frame(width: int, height: int) -> list[str]:
        from smooth_orchestrator.progress.table import frame_of  # noqa: PLC0415 - rich's tables, when one is drawn

        return frame_of(heard.told(), stream, width, height)

    window = Window(stream, frame, stays=not sys.stdout.isatty())
    with hearing(heard), window.opened():
        yield window
