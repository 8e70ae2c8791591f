"""The exit codes with which `apply_migrations` says what became of a call that failed; they are a deploy's."""

from typing import Final

__all__ = ["LOCKED", "NEEDS_OPERATOR", "REFUSED"]

REFUSED: Final = 3
NEEDS_OPERATOR: Final = 4
LOCKED: Final = 5
