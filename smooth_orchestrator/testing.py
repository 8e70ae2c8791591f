"""Fakes of this package's seams, for tests without files and servers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio.lowlevel

from smooth_migrations.protocol.owner import Holder, Life, Owner, life_of
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal import summary_of
from smooth_orchestrator.journal.base import LEASE_S, Claim, Fenced, Record, RecordKind, RunSummary, deploy_of, held

__all__ = ["MemoryJournal"]


@dataclass(slots=True)
class _Lease:
    owner: Owner | None
    epoch: int
    since: datetime
    expires_at: datetime


@dataclass(slots=True)
class _Store:
    records: list[Record] = field(default_factory=list)
    leases: dict[str, _Lease] = field(default_factory=dict)


class MemoryJournal:
    """A `Journal` that forgets everything with its process.

    Args:
        clock: tells the time of a record, in UTC.
        shared: another one, of which this one sees the same records and leases.
    """

    def __init__(
        self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC), shared: "MemoryJournal | None" = None
    ) -> None:
        self._clock = clock
        self._store: _Store = shared._store if shared else _Store()  # noqa: SLF001 - of the same class
        self._claim: Claim | None = None
        self._closed = False

    async def acquire(self, deploy: str, owner: Owner) -> Claim:
        """Acquire the lease of a deploy; see `Journal.acquire`."""
        self._check_open()
        now = self._clock()
        lease = self._store.leases.setdefault(deploy, _Lease(None, 0, now, now))
        if lease.owner and lease.expires_at > now and life_of(lease.owner) is not Life.GONE:
            raise held(deploy, Holder(lease.owner, lease.since))
        lease.owner, lease.epoch, lease.since = owner, lease.epoch + 1, now
        lease.expires_at = now + timedelta(seconds=LEASE_S)
        self._claim = Claim(deploy, lease.epoch)
        return self._claim

    async def renew(self) -> None:
        """Put the expiry off; see `Journal.renew`."""
        self._check_open()
        if self._claim:
            self._check_claim()
            self._store.leases[self._claim.deploy].expires_at = self._clock() + timedelta(seconds=LEASE_S)

    async def release(self) -> None:
        """Give the lease back."""
        claim, self._claim = self._claim, None
        if claim and self._store.leases[claim.deploy].epoch == claim.epoch:
            self._store.leases[claim.deploy].owner = None

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Keep one record; see `Journal.append`."""
        content = json.loads(json.dumps(dict(data or {})))
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        self._check_claim()
        seq, deploy = len(self._store.records) + 1, deploy_of(content, self._claim)
        record = Record(seq, self._clock(), run_id, kind, database, content, deploy)
        self._store.records.append(record)
        return record

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return every record of a run, oldest first."""
        self._check_open()
        return tuple(record for record in self._store.records if record.run_id == run_id)

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return the latest runs of a deploy, newest first."""
        self._check_open()
        started: dict[str, Record] = {}
        finished: dict[str, Record] = {}
        for record in self._store.records:
            if record.kind is RecordKind.RUN_STARTED and record.data["deploy"] == deploy:
                # Taken out first, so that a run begun again moves to the end.
                started.pop(record.run_id, None)
                finished.pop(record.run_id, None)
                started[record.run_id] = record
            elif record.kind is RecordKind.RUN_FINISHED and record.deploy in {None, deploy}:
                finished[record.run_id] = record
        return tuple(
            summary_of(record, finished.get(record.run_id)) for record in [*reversed(started.values())][:limit]
        )

    async def aclose(self) -> None:
        """Refuse everything from now on; repeating it does nothing."""
        self._closed = True

    def _check_claim(self) -> None:
        if self._claim and self._store.leases[self._claim.deploy].epoch != self._claim.epoch:
            raise Fenced(self._claim.deploy)

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError("the journal is closed")
