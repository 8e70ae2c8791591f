"""A journal for commands that change nothing: there is nothing to remember of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.journal.base import Claim, Record, RecordKind, RunSummary

__all__ = ["NoJournal"]


class NoJournal:
    """Keeps nothing, makes no file and opens no connection; see `Journal`."""

    async def acquire(self, deploy: str, owner: Owner) -> Claim:
        """Return a lease of nothing."""
        del owner
        return Claim(deploy, 0)

    async def renew(self) -> None:
        """Do nothing."""

    async def release(self) -> None:
        """Do nothing."""

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Return the record as it would stand in a journal."""
        return Record(0, datetime.now(UTC), run_id, kind, database, dict(data or {}))

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return nothing."""
        del run_id
        return ()

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return nothing."""
        del deploy, limit
        return ()

    async def aclose(self) -> None:
        """Do nothing."""
