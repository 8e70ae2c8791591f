"""Names and lengths as a page shows them: never longer than it has room for. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from smooth_orchestrator.render import databases_text

__all__ = ["clipped", "counted", "moment_text", "names_text"]

_LONGEST_NAME: Final = 160
_MOST_NAMES: Final = 24


def clipped(text: str, longest: int = _LONGEST_NAME) -> str:
    """Return a text, or its beginning and how much more there was."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]} … ({len(text) - longest:,} characters more)"


def counted(number: int, word: str) -> str:
    """Return a number and its noun: `1 error`, `1,000 errors`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def names_text(names: Sequence[str], of: int) -> str:
    """Return the names of databases, or how many they are.

    Args:
        names: of databases.
        of: how many there are in all.
    """
    if len(names) == of > 1:
        return f"all {databases_text(of)}"
    shown = ", ".join(clipped(name) for name in names[:_MOST_NAMES])
    return shown if len(names) <= _MOST_NAMES else f"{shown} and {len(names) - _MOST_NAMES:,} more"


def moment_text(moment: datetime) -> str:
    """Return a moment for a person, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
