"""One operation at work on one database."""

import logging
import time

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from smooth_migrations.backfill.operation import Backfill
from smooth_migrations.backfill.pace import Pace
from smooth_migrations.backfill.position import Place, Position, packed, unpacked
from smooth_migrations.backfill.rows import Rows
from smooth_migrations.backfill.throttle import Throttle, pause
from smooth_migrations.errors import is_lock_failure
from smooth_migrations.protocol.failpoints import passing

__all__ = ["Filling"]

_logger = logging.getLogger("smooth_migrations.backfill")

# Rows may come meanwhile behind the last batch, where keys do not grow: they are looked for, but not for ever.
_PASSES = 3
_ATTEMPTS = 10
_AGAIN_S = 0.2
_PROGRESS_S = 10.0
# A batch need not be on disk before the next one: a server that crashes loses the row's position with it, and the end
# is a commit like any other, which has all before it written (PostgreSQL manual, "Asynchronous Commit"). A standby that
# is waited for sets the pace.
_WITHOUT_WAITING = """
    SELECT set_config('synchronous_commit', 'off', true) WHERE current_setting('synchronous_standby_names') = ''
"""
_ANALYZE = {"postgresql": "ANALYZE", "mysql": "ANALYZE NO_WRITE_TO_BINLOG TABLE"}


class Filling:
    """Fills the rows of one table.

    Args:
        operation: how.
        model: which, as it is at this moment of the history.
        connection: the database's.
    """

    def __init__(self, operation: Backfill, model: type[Model], connection: BaseDatabaseWrapper) -> None:
        self._operation = operation
        self._model = model
        self._connection = connection
        self._rows = Rows(operation, model, connection)
        self._position = Position(connection, operation, model)
        self._throttle = Throttle(operation, connection)
        self._pace = Pace(operation.batch_size, operation.max_batch_size, operation.batch_ms / 1000)
        self._filled = 0
        self._told_s = time.monotonic()

    def run(self) -> None:
        """Fill all of them: in the transaction that is open, or else batch by batch.

        Raises:
            DatabaseError: a batch failed, or could not get its locks in several attempts; those before it stay.
            Interrupted: the call was to end.
        """
        if self._connection.in_atomic_block:
            self._rows.fill()
            return
        for number in range(_PASSES if self._rows.can_tell else 1):
            if self._rows.can_tell and not self._rows.have_more():
                break
            if number == 0:
                self._analyze()
            self._pass()
        self._position.forget()

    def _analyze(self) -> None:
        statement = _ANALYZE.get(self._connection.vendor)
        if statement is not None:
            table = self._connection.ops.quote_name(self._model._meta.db_table)  # noqa: SLF001 - public
            try:
                with self._connection.cursor() as cursor:
                    cursor.execute(f"{statement} {table}")
            except DatabaseError as error:
                # Such as of a vacuum, which leaves statistics of its own.
                if not is_lock_failure(error):
                    raise

    def _pass(self) -> None:
        """Go once from where it has come to, to the last key."""
        if self._rows.end_of(None, 1) is None:
            return
        place, failures, is_over = self._position.begin(), 0, False
        while not is_over:
            self._throttle.wait()
            began_s = time.monotonic()
            try:
                place, filled, is_over = self._batch(place)
            except DatabaseError as error:
                failures += 1
                if not is_lock_failure(error) or failures == _ATTEMPTS:
                    raise
                self._pace.shrink()
                pause(self._connection, _AGAIN_S * failures)
                continue
            failures = 0
            self._tell(filled)
            self._throttle.rest(filled, time.monotonic() - began_s)
        self._position.forget()

    def _batch(self, place: Place) -> tuple[Place, int, bool]:
        """Fill the next batch; return where it ended, how many rows were filled, and whether it was the last."""
        began_s, after = time.monotonic(), unpacked(self._model, place.key)
        found = self._rows.end_of(after, self._throttle.most(self._pace.size))
        if found is None:
            return place, 0, True
        until, is_full = found
        ended = Place(place.batches + 1, packed(self._model, until))
        with passing("fill"), transaction.atomic(self._connection.alias):
            # First, so that of two processes the second waits here, and SQLite begins with a write.
            is_next = self._position.advance(place, ended.key)
            if is_next and self._connection.vendor == "postgresql":
                with self._connection.cursor() as cursor:
                    cursor.execute(_WITHOUT_WAITING)
            filled = self._rows.fill(after, until) if is_next else 0
        if not is_next:
            # Another process has done this batch, and where the row is gone all of them.
            found_now = self._position.read()
            return found_now or place, 0, found_now is None
        self._pace.learn(time.monotonic() - began_s, is_full=is_full)
        return ended, filled, not is_full

    def _tell(self, filled: int) -> None:
        self._filled += filled
        if time.monotonic() - self._told_s > _PROGRESS_S:
            self._told_s = time.monotonic()
            _logger.info("%s: %d rows so far", self._operation.describe(), self._filled)
