"""Let a call commit nothing by itself any more when somebody else has gone on from where it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import atomic

__all__ = ["fenced"]


@contextmanager
def fenced(connection: BaseDatabaseWrapper, fence: Callable[[], None] | None) -> Iterator[None]:
    """Commit what is run within together with a check of the lease, or nothing of it.

    Args:
        connection: the target's.
        fence: checks the lease in the open transaction; None where there is no lease.

    Raises:
        LeaseLost: somebody has the lease since; see `Lease.check`, as for its locks.
    """
    if fence is None:
        yield
        return
    # Without a savepoint, whose rollback would release the lock.
    with atomic(connection.alias, savepoint=False):
        fence()
        yield
