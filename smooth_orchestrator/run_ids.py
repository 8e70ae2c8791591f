"""The names of runs: new ones, and those that a caller has chosen and may have used before."""

import os
import re
from datetime import UTC, datetime
from typing import Final

__all__ = ["CHOSEN", "is_new", "new_run_id"]

CHOSEN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What a caller may choose."""

_NEW: Final = re.compile(r"[0-9]{8}T[0-9]{6}-[0-9a-f]{8}")


def new_run_id() -> str:
    """Return an id that no other run has; ids sort by the second in which they were made."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.urandom(4).hex()}"


def is_new(run_id: str) -> bool:
    """Return whether an id looks like one that was made here, and so belongs to one run alone. Pure."""
    return _NEW.fullmatch(run_id) is not None
