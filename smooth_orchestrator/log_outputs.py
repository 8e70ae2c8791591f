"""How an event becomes a line of the log, on a stream or in a file."""

import json
import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from smooth_orchestrator.console import Stream, event_text, wants_colour
from smooth_orchestrator.log_file import LogFile

__all__ = ["LogFormat", "LogLevel", "Output", "file_output", "stream_output"]


class LogFormat(StrEnum):
    """How lines on stderr look; `AUTO` is JSON unless stderr is a terminal.

    `JOURNALD` is JSON behind the priority by which systemd's journal files a line; see sd-daemon(3).
    """

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"
    JOURNALD = "journald"


class LogLevel(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"

    @property
    def number(self) -> int:
        """The level as the standard library counts it."""
        return logging.getLevelNamesMapping()[self.upper()]

    @property
    def priority(self) -> int:
        """The level as syslog counts it: the graver, the less."""
        return _PRIORITIES[self]


_PRIORITIES: Final = {
    LogLevel.DEBUG: 7,
    LogLevel.INFO: 6,
    LogLevel.WARNING: 4,
    LogLevel.ERROR: 3,
    LogLevel.CRITICAL: 2,
}


class Output(Protocol):
    """Writes events."""

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Write one event as one whole line."""


def stream_output(log_format: LogFormat, stream: Stream, *, brief: bool) -> Output:
    """Return what writes events to a stream.

    Args:
        log_format: how lines look.
        stream: where they go.
        brief: whether lines of text have a traceback only where nobody can have expected one.
    """
    console = log_format is LogFormat.CONSOLE or (log_format is LogFormat.AUTO and stream.isatty())
    render: Callable[[Mapping[str, Any]], str] = _with_priority if log_format is LogFormat.JOURNALD else json.dumps
    if console:
        colour = wants_colour(stream)

        def render(event: Mapping[str, Any]) -> str:
            has_traces = not brief or event["level"] == LogLevel.CRITICAL
            return event_text(event, colour=colour, has_traces=has_traces)

    def write(event: Mapping[str, Any]) -> None:
        stream.write(f"{render(event)}\n")
        stream.flush()

    return write


def _with_priority(event: Mapping[str, Any]) -> str:
    return f"<{LogLevel(event['level']).priority}>{json.dumps(event)}"


def file_output(file: LogFile) -> Output:
    """Return what writes events to a file, as JSON."""

    def write(event: Mapping[str, Any]) -> None:
        file.write(json.dumps(event))

    return write
