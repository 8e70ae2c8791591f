"""Named points at which a process can be made to kill itself, so that a test can visit every moment of a crash.

`SMOOTH_FAILPOINT=commit.after` kills the process that reaches that point, `commit.after:3` the one that reaches it for
the third time. One stands before and one after every journal write and every statement that changes a database's fate;
`tests/unit/test_failpoints.py` finds those that have none.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

__all__ = ["COORDINATOR", "WORKER", "passing", "reach"]

_VARIABLE: Final = "SMOOTH_FAILPOINT"
_RECORDS: Final = ("run_started", "phase_started", "intent", "step", "unstep", "held", "preparing", "decision")
_ENDS: Final = ("committed", "rolled_back", "run_finished")
# What a worker is asked to do.
_ASKED: Final = ("inspect", "look", "apply", "prepare", "commit", "rollback", "undo", "settle_prepared")

COORDINATOR: Final = tuple(
    f"{name}.{side}"
    for name in (
        *(f"journal.{what}" for what in ("acquire", *_RECORDS, *_ENDS, "release")),
        *(f"ask.{command}" for command in _ASKED),
        *("decide", "commit_prepared", "rollback_prepared", "end_session"),
    )
    for side in ("before", "after")
)
"""Those of the coordinator: `journal.…` at a record or at the deploy's lease, `ask.…` at a command to a worker."""

WORKER: Final = tuple(
    f"{name}.{side}"
    for name in (
        # Forwards; `note` is a write to the call's own journal.
        *("lease.acquire", "begin", "apply", "operation", "note", "seal", "mark", "prepare", "commit", "commit_alias"),
        *("record", "commit_transaction", "settle_prepared", "lease.release"),
        # And back.
        *("rollback", "rollback_transaction", "rollback_alias", "unapply", "settle", "give_back", "reverse", "restore"),
        *("make_empty", "undo", "undo_commit", "remove_received", "unmark", "end_sessions"),
        # What is held back, and its end.
        *("queue", "dequeue", "contract", "discard", "lay", "lift"),
        # A batch of rows.
        "fill",
    )
    for side in ("before", "after")
)
"""Those of the workers, and of `manage.py apply_migrations`."""

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
