"""What is written for a person at a terminal: safe characters, colours where they are wanted, one event a line."""

import os
from collections.abc import Mapping
from typing import Any, Final, TextIO

__all__ = ["event_text", "printable", "wants_colour"]

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


def wants_colour(stream: TextIO) -> bool:
    """Tell whether to colour what goes to this stream: a terminal, unless `NO_COLOR` is set (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def printable(text: str) -> str:
    """Return the text with control characters other than tab and newline escaped: none can drive a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def event_text(event: Mapping[str, Any], *, colour: bool) -> str:
    """Return one log event as a line, followed by its error's traceback where there is one."""
    level = event["level"]
    words = [
        _painted(event["timestamp"][11:23], _DIM, colour=colour),
        _painted(f"{level:<8}", _LEVEL_COLOURS[level], colour=colour),
        _painted(str(event["event"]), _BOLD, colour=colour),
        *(f"{key}={_value(value)}" for key, value in event.items() if key not in _NOT_REPEATED),
    ]
    return " ".join(words) + _error_text(event.get("error") or {})


def _error_text(error: Mapping[str, Any]) -> str:
    if not error:
        return ""
    state = f" (SQLSTATE {error['sqlstate']})" if error.get("sqlstate") else ""
    text = f"{error['type']}{state}: {error['message']}"
    if error.get("hint"):
        text += f"\nhint: {error['hint']}"
    if error.get("traceback"):
        text += f"\n{error['traceback'].rstrip()}"
    return "".join(f"\n  {line}" for line in printable(text).splitlines())


def _value(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and " " not in text else repr(text)


def _painted(text: str, paint: str, *, colour: bool) -> str:
    return f"{paint}{text}{_RESET}" if colour else text
