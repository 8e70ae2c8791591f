"""Modes of locks on tables that make readers or writers wait, weakest first (PostgreSQL manual, 13.3.1)."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import TypeAlias

__all__ = ["Locks", "Mode", "together"]


class Mode(IntEnum):
    """A mode; of two, the stronger one keeps out all that the weaker one does."""

    SHARE = 1
    SHARE_ROW_EXCLUSIVE = 2
    ACCESS_EXCLUSIVE = 3

    @property
    def sql(self) -> str:
        """What it is called in SQL."""
        return self.name.replace("_", " ")


Locks: TypeAlias = Mapping[str, Mode]
"""Modes by the name of a table or view."""


def together(several: Iterable[Locks]) -> Locks:
    """Return the strongest mode of each table. Pure."""
    strongest: dict[str, Mode] = {}
    for locks in several:
        for table, mode in locks.items():
            strongest[table] = max(mode, strongest.get(table, mode))
    return strongest
