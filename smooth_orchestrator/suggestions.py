"""The hint that follows a misspelt name."""

from collections.abc import Collection
from difflib import get_close_matches

__all__ = ["did_you_mean", "listed", "quoted"]

_LONGEST = 60


def did_you_mean(word: str, names: Collection[str]) -> str | None:
    """Return `did you mean "x"?` with the nearest of the names, or None where none is near."""
    # Comparing takes time with the square of the length, and no name is as long as that.
    near = get_close_matches(word[:_LONGEST], names, n=1)
    return f"did you mean {quoted(near[0])}?" if near else None


def quoted(word: str) -> str:
    """Return the word in quotation marks, on one line and not endlessly long."""
    shown = word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"
    return '"' + "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shown) + '"'


def listed(names: Collection[str]) -> str:
    """Return the names, quoted, with commas between them."""
    return ", ".join(quoted(name) for name in names)
