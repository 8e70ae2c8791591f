"""What is written for a person at a terminal: safe characters, colours where they are wanted, one event a line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TextIO

from smooth_orchestrator.events import blocker_text

__all__ = ["Plain", "Stream", "event_text", "on_one_line", "printable", "wants_colour"]

_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_BOLD: Final = "\x1b[1m"
_LEVEL_COLOURS: Final = {
    "debug": _DIM,
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[1;31m",
}

# Told by the line's beginning, or the same on every line of a run.
_NOT_REPEATED: Final = {"timestamp", "level", "event", "run_id", "deploy", "error"}


class Stream(Protocol):
    """Where lines go to."""

    def write(self, text: str, /) -> int:
        """Write text."""
        ...

    def flush(self) -> None:
        """Write what has been kept back."""
        ...

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        ...


@dataclass(frozen=True, slots=True)
class Plain:
    """Prints lines as a console of rich's does where nobody looks; that one takes long to import.

    Args:
        stream: where to.
    """

    stream: TextIO

    def print(self, text: str = "", **_style: object) -> None:
        """Print a text and end its line; how it would look on a terminal is all the same."""
        self.stream.write(f"{text.expandtabs()}\n")


def wants_colour(stream: Stream) -> bool:
    """Tell whether to colour what goes to this stream: a terminal, unless `NO_COLOR` is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def printable(text: str) -> str:
    """Return the text with control characters other than tab and newline escaped: none can drive a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def on_one_line(text: str) -> str:
    """Return the text in one line, with a space for each line break, and `printable`."""
    return printable(" ".join(text.split()))


def event_text(event: Mapping[str, Any], *, colour: bool, has_traces: bool = True) -> str:
    """Return one log event as a line, followed by its error, with its traceback where there is one and it is wanted."""
    level = event["level"]
    words = [
        _painted(event["timestamp"][11:23], _DIM, colour=colour),
        _painted(f"{level:<8}", _LEVEL_COLOURS[level], colour=colour),
        _painted(str(event["event"]), _BOLD, colour=colour),
        *(f"{key}={_value(key, value)}" for key, value in event.items() if key not in _NOT_REPEATED),
    ]
    return " ".join(words) + _error_text(event.get("error") or {}, has_traces=has_traces)


def _error_text(error: Mapping[str, Any], *, has_traces: bool) -> str:
    if not error:
        return ""
    state = f" (SQLSTATE {error['sqlstate']})" if error.get("sqlstate") else ""
    text = f"{error['type']}{state}: {error['message']}"
    if error.get("hint"):
        text += f"\nhint: {error['hint']}"
    if has_traces and error.get("traceback"):
        text += f"\n{error['traceback'].rstrip()}"
    return "".join(f"\n  {line}" for line in printable(text).splitlines())


def _value(key: str, value: Any) -> str:  # noqa: ANN401 - whatever an event tells
    text = ", ".join(map(blocker_text, value)) if key == "blockers" else str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)


def _painted(text: str, paint: str, *, colour: bool) -> str:
    return f"{paint}{text}{_RESET}" if colour else text
