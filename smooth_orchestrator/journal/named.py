"""A journal in which what is written belongs to another deploy than to the one whose lease is held."""

from collections.abc import Mapping
from typing import Any

from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.journal.base import Claim, Journal, Record, RecordKind, RunSummary

__all__ = ["InNameOf"]


class InNameOf:
    """Writes records in the name of a deploy, for a run of its that another one settles; see `Journal` for the rest.

    Args:
        journal: where they are written, by whoever holds a lease there.
        deploy: whose they are.
    """

    def __init__(self, journal: Journal, deploy: str) -> None:
        self._journal = journal
        self._deploy = deploy

    async def acquire(self, deploy: str, owner: Owner) -> Claim:
        """Acquire the lease of a deploy."""
        return await self._journal.acquire(deploy, owner)

    async def renew(self) -> None:
        """Put the expiry of the acquired lease off."""
        await self._journal.renew()

    async def release(self) -> None:
        """Give the acquired lease back."""
        await self._journal.release()

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Write one record that says whose it is."""
        return await self._journal.append(
            run_id, kind, database=database, data={"deploy": self._deploy, **(data or {})}
        )

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return every record of a run."""
        return await self._journal.records(run_id)

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return a deploy's runs."""
        return await self._journal.runs(deploy, limit=limit)

    async def aclose(self) -> None:
        """Leave the journal open to whoever has opened it."""
