"""Let a call commit nothing by itself any more when somebody else has gone on from where it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import atomic

__all__ = ["Fence", "fenced"]


class Fence(Protocol):
    """What keeps a call from committing when it is somebody else's turn."""

    def check(self) -> None:
        """Make sure that the open transaction commits only while it is our turn; see `Lease.check`."""

    def end_left(self) -> None:
        """Make sure that the session that was checked last is at work no more if it was lost; see `Lease.end_left`."""


@contextmanager
def fenced(connection: BaseDatabaseWrapper, fence: Fence | None) -> Iterator[None]:
    """Commit what is run within together with a check of the lease, or nothing of it.

    Args:
        connection: the target's.
        fence: the lease; None where there is none.

    Raises:
        LeaseLost: somebody has the lease since; see `Lease.check`, as for its locks.
    """
    if fence is None:
        yield
        return
    # Without a savepoint, whose rollback would release the lock.
    with atomic(connection.alias, savepoint=False):
        fence.check()
        yield
