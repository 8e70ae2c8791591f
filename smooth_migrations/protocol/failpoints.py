"""Named points at which a process can be made to kill itself, so that a test can visit every moment of a crash.

`SMOOTH_FAILPOINT=commit.after` kills the process that reaches that point, `commit.after:3` the one that reaches it for
the third time. One stands before and one after every journal write and every statement that changes a database's fate.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["COORDINATOR", "WORKER", "passing", "reach"]

_VARIABLE: Final = "SMOOTH_FAILPOINT"
_KINDS: Final = ("run_started", "phase_started", "intent", "step", "unstep", "held", "preparing", "decision")
_ENDS: Final = ("committed", "rolled_back", "run_finished")

COORDINATOR: Final = tuple(
    f"{name}.{side}"
    for name in (*(f"journal.{kind}" for kind in (*_KINDS, *_ENDS)), "decide", "commit_prepared", "rollback_prepared")
    for side in ("before", "after")
)
"""Those of the coordinator, in the order in which a run may reach them."""

WORKER: Final = tuple(
    f"{name}.{side}"
    for name in ("begin", "apply", "seal", "prepare", "commit", "rollback", "unapply")
    for side in ("before", "after")
)
"""Those of the workers."""

_reached: Counter[str] = Counter()


def reach(name: str) -> None:
    """Kill this process if it was asked for at this point. Without the variable it is one look into a dictionary."""
    wanted = os.environ.get(_VARIABLE)
    if wanted is None:
        return
    at, _, count = wanted.partition(":")
    if at != name:
        return
    _reached[name] += 1
    if _reached[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def passing(name: str) -> Iterator[None]:
    """Reach the point before something and, unless it raises, the one after it."""
    reach(f"{name}.before")
    yield
    reach(f"{name}.after")
