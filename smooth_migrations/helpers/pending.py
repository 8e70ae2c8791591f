"""The contract operations that a database still has before it."""

from collections.abc import Sequence
from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["pending_contract"]

_TABLE: Final = "smooth_migrations_contract"
"""Where a deploy that holds its destructive half back notes what is left to do."""


def pending_contract(connection: BaseDatabaseWrapper) -> Sequence[str]:
    """Return what is queued, oldest first, each as `orders.0007_total: drop column orders_order.sum`.

    Reads the catalogue; takes no locks that anybody waits for.

    Args:
        connection: to the database.

    Raises:
        NotImplementedError: there is a queue, which this version does not read.
    """
    if _TABLE not in connection.introspection.table_names():
        return []
    raise NotImplementedError(f"{_TABLE} was made by another version of smooth_migrations")
