"""Fakes of this package's seams, for tests without files and servers."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import anyio.lowlevel

from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal.base import Record, RecordKind, RunSummary

__all__ = ["MemoryJournal"]


class MemoryJournal:
    """A `Journal` that forgets everything with its process.

    Args:
        clock: tells the time of a record, in UTC.
    """

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._records: list[Record] = []
        self._closed = False

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Keep one record; see `Journal.append`."""
        content = json.loads(json.dumps(dict(data or {})))
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        record = Record(len(self._records) + 1, self._clock(), run_id, kind, database, content)
        self._records.append(record)
        return record

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return every record of a run, oldest first."""
        self._check_open()
        return tuple(record for record in self._records if record.run_id == run_id)

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return the latest runs of a deploy, newest first."""
        self._check_open()
        started: dict[str, Record] = {}
        finished: dict[str, Record] = {}
        for record in self._records:
            if record.kind is RecordKind.RUN_STARTED and record.data["deploy"] == deploy:
                # Taken out first, so that a run begun again moves to the end.
                started.pop(record.run_id, None)
                finished.pop(record.run_id, None)
                started[record.run_id] = record
            elif record.kind is RecordKind.RUN_FINISHED:
                finished[record.run_id] = record
        return tuple(_summary(record, finished.get(record.run_id)) for record in [*reversed(started.values())][:limit])

    async def aclose(self) -> None:
        """Refuse everything from now on; repeating it does nothing."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError("the journal is closed")


def _summary(started: Record, finished: Record | None) -> RunSummary:
    return RunSummary.of(started.run_id, (started.at, started.data), (finished.at, finished.data) if finished else None)
