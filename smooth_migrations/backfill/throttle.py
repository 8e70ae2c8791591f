"""What a batch waits for, so that others are served while columns are filled."""

import logging
import time
from typing import TYPE_CHECKING

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.backfill.arguments import BadBackfill
from smooth_migrations.backfill.operation import Backfill

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Throttle", "pause"]

_logger = logging.getLogger("smooth_migrations.backfill")

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SLICE_S = 0.2
# A standby that has caught up with an idle primary has no lag (PostgreSQL manual, "pg_stat_replication"). What a role
# may not see is NULL, and of a standby that is away its slot alone tells.
_LAG = """
    SELECT CASE WHEN count(*) FILTER (WHERE state IS NULL OR (state = 'catchup' AND replay_lag IS NULL)) = 0
                 AND NOT EXISTS (SELECT 1 FROM pg_replication_slots WHERE slot_type = 'physical' AND NOT active)
                THEN coalesce(max(extract(epoch FROM replay_lag)), 0) END
    FROM pg_stat_replication
"""


def pause(connection: BaseDatabaseWrapper, duration_s: float) -> None:
    """Wait, and send a statement now and then: there the call can be ended, and is heard to be alive.

    Raises:
        Interrupted: the call was to end.
    """
    until_s = time.monotonic() + duration_s
    while (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(left_s, _SLICE_S))
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")


class Throttle:
    """What one operation asks for.

    Args:
        operation: with its limits.
        connection: to the database, in autocommit. Only reads.
    """

    def __init__(self, operation: Backfill, connection: BaseDatabaseWrapper) -> None:
        self._operation = operation
        self._connection = connection
        self._signals: list[tuple[str, float, Callable[[], float | None]]] = []
        if operation.max_replication_lag_s is not None and connection.vendor != "sqlite":
            self._signals.append(("the replication lag", operation.max_replication_lag_s, self._lag))
        if operation.max_load is not None:
            query, limit = operation.max_load
            self._signals.append(("max_load", limit, lambda: self._ask(query)))

    def wait(self) -> None:
        """Return when no signal is above its limit. One that cannot be read is waited for as well.

        Raises:
            BadBackfill: this server does not tell one of them.
            Interrupted: the call was to end.
        """
        pause_s, told = _FIRST_PAUSE_S, ""
        while (obstacle := self._obstacle()) is not None:
            what, words = obstacle
            if what != told:
                _logger.warning("%s pauses: %s %s", self._operation.describe(), what, words)
                told = what
            pause(self._connection, pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def rest(self, filled: int, duration_s: float) -> None:
        """Wait after a batch until it was no faster than it may be.

        Args:
            filled: its rows.
            duration_s: what it took.
        """
        rate = self._operation.rows_per_second
        if rate is not None:
            pause(self._connection, filled / rate - duration_s)

    def most(self, size: int) -> int:
        """Return how many rows a batch may have that is not to be followed by more than a second's rest."""
        rate = self._operation.rows_per_second
        return size if rate is None else max(min(size, int(rate)), 1)

    def _obstacle(self) -> tuple[str, str] | None:
        for what, limit, read in self._signals:
            value = read()
            if value is None:
                return what, "cannot be read"
            if not value <= limit:
                return what, f"is {value:g}, above {limit:g}"
        return None

    def _lag(self) -> float | None:
        if self._connection.vendor != "postgresql":
            raise BadBackfill(
                f"{self._operation.describe()}: {self._connection.display_name} does not tell how far its replicas are "
                "behind: leave max_replication_lag_s out, or give a query of your own as max_load"
            )
        return self._ask(_LAG)

    def _ask(self, query: str) -> float | None:
        try:
            with self._connection.cursor() as cursor:
                cursor.execute(query)
                row = cursor.fetchone()
            return None if row is None or row[0] is None else float(row[0])
        except (DatabaseError, TypeError, ValueError):
            return None
