"""The few pieces of Markdown that the pages are put together of."""

from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["code", "table"]

_BAR: Final = r"\|"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, with its last line's end."""
    return f"{_line(head)}|{'---|' * len(head)}\n{''.join(map(_line, rows))}"


def code(text: object) -> str:
    """Return a text as code."""
    return f"`{text}`"


def _line(cells: Iterable[str]) -> str:
    # A bar ends a cell, also within code.
    return f"| {' | '.join(' '.join(each.split()).replace('|', _BAR) for each in cells)} |\n"
