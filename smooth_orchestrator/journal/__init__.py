"""The coordinator's journal: an append-only record of every run, written before what it announces happens."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote

from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal.base import (
    LOOK_BACK,
    Claim,
    Fenced,
    Journal,
    JournalUnsureError,
    Record,
    RecordKind,
    RunSummary,
)
from smooth_orchestrator.journal.named import InNameOf
from smooth_orchestrator.journal.none import NoJournal
from smooth_orchestrator.journal.stored import JournalDamaged, summary_of, understood

__all__ = [
    "LOOK_BACK",
    "Claim",
    "Fenced",
    "InNameOf",
    "Journal",
    "JournalDamaged",
    "JournalUnsureError",
    "NoJournal",
    "Record",
    "RecordKind",
    "RunSummary",
    "open_journal",
    "summary_of",
    "understood",
    "why_not_begun",
]


@asynccontextmanager
async def open_journal(
    url: str, *, directory: Path, makes_file: bool = True, patience_s: float = 30.0
) -> AsyncIterator[Journal]:
    """Open the journal that a plan names, and close it at the end.

    Args:
        url: `sqlite:///relative/file`, `sqlite:////absolute/file` or `postgresql://user@host/database`.
        directory: what a relative file is relative to: the plan's directory.
        makes_file: whether a journal that is not there yet is begun; without that it is one without records.
        patience_s: for how long a call waits for a server that was lost.

    Raises:
        JournalError: it cannot be opened, or looked for, or is of no known kind.
    """
    journal = await _open(url, directory, makes_file=makes_file, patience_s=patience_s)
    try:
        yield journal
    finally:
        await journal.aclose()


def why_not_begun(url: str, *, directory: Path) -> str | None:
    """Return why a journal in a file that is not there yet could not be begun; None where nothing tells. Makes nothing.

    Args:
        url: as for `open_journal`.
        directory: likewise.
    """
    scheme, _, rest = url.partition("://")
    path = directory / unquote(rest[1:])
    if scheme != "sqlite" or os.path.lexists(path):
        return None
    there = next(parent for parent in path.parents if os.path.lexists(parent))
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there}: this user may make nothing in it"


async def _open(url: str, directory: Path, *, makes_file: bool, patience_s: float) -> Journal:
    # Each kind is imported when asked for: a plan with a journal in a file does not wait for asyncpg.
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and len(rest) > 1 and rest.startswith("/"):
        from smooth_orchestrator.journal.sqlite import SqliteJournal  # noqa: PLC0415 - see above

        path = directory / unquote(rest[1:])
        return await SqliteJournal.open(path) if makes_file or SqliteJournal.exists(path) else NoJournal()
    if scheme in {"postgresql", "postgres"}:
        from smooth_orchestrator.journal.postgres import PostgresJournal  # noqa: PLC0415 - see above

        return await PostgresJournal.open(url, makes_tables=makes_file, patience_s=patience_s)
    raise JournalError(
        "the journal's address is of no known kind",
        hint="write sqlite:///relative/file, sqlite:////absolute/file or postgresql://user@host/database",
    )
