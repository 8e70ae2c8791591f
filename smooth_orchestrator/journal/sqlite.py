"""A journal in an SQLite file beside the plan."""

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from smooth_migrations.protocol import failpoints
from smooth_migrations.protocol.owner import Holder, Life, Owner, life_of
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal.base import (
    LEASE_S,
    Claim,
    Fenced,
    Record,
    RecordKind,
    RunSummary,
    deploy_of,
    held,
)
from smooth_orchestrator.journal.stored import read_record, read_summary, understood

__all__ = ["SqliteJournal"]

# Marks the file as ours (PRAGMA application_id), so that a mistyped path never grows tables in somebody's database.
_APPLICATION_ID: Final = 0x736D6F6F
_VERSION: Final = 3
_BUSY_TIMEOUT_S: Final = 10.0

# What makes each format of the one before it.
_FORMATS: Final = (
    f"""
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    deploy TEXT,
    database TEXT,
    data TEXT NOT NULL
);
CREATE INDEX journal_run ON journal (run_id, seq);
CREATE INDEX journal_deploy ON journal (deploy, run_id, seq) WHERE kind = 'run_started';
CREATE TRIGGER journal_is_not_updated BEFORE UPDATE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_is_not_deleted_from BEFORE DELETE ON journal
BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = 1;
""",
    """
CREATE TABLE lease (
    deploy TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    machine TEXT NOT NULL,
    started TEXT NOT NULL,
    acquired_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
PRAGMA user_version = 2;
""",
    """
ALTER TABLE lease ADD COLUMN expires_s REAL NOT NULL DEFAULT 0;
PRAGMA user_version = 3;
""",
)

# Written only while the lease is ours, where one was acquired: one statement is one transaction.
_INSERT: Final = """
INSERT INTO journal (at, run_id, kind, deploy, database, data)
SELECT :at, :run_id, :kind, :deploy, :database, :data
WHERE :claimed IS NULL OR EXISTS (SELECT 1 FROM lease WHERE deploy = :claimed AND epoch = :epoch)
"""
_READ_LEASE: Final = """
SELECT epoch, owner, host, pid, machine, started, acquired_at, expires_at, expires_s FROM lease WHERE deploy = ?
"""
_TAKE_LEASE: Final = """
INSERT OR REPLACE INTO lease (deploy, epoch, owner, host, pid, machine, started, acquired_at, expires_at, expires_s)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

_RECORDS: Final = "SELECT seq, at, run_id, kind, database, data, deploy FROM journal WHERE run_id = ? ORDER BY seq"
_RUNS: Final = """
SELECT s.seq, s.at, s.run_id, s.kind, s.database, s.data, s.deploy,
       f.seq, f.at, f.run_id, f.kind, f.database, f.data, f.deploy
FROM (SELECT max(seq) AS seq FROM journal WHERE kind = 'run_started' AND deploy = ? GROUP BY run_id
      ORDER BY 1 DESC LIMIT ?) AS newest
JOIN journal AS s ON s.seq = newest.seq
LEFT JOIN journal AS f ON f.seq =
    (SELECT max(seq) FROM journal WHERE run_id = s.run_id AND kind = 'run_finished' AND seq > s.seq
        AND coalesce(deploy, s.deploy) = s.deploy)
ORDER BY s.seq DESC
"""

_HINTS: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "another process is writing to it; try again when that has ended",
    sqlite3.SQLITE_CANTOPEN: "see that the directory exists and that this user may write to it",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup, or move it away and run `smooth-orchestrate recover`",
    sqlite3.SQLITE_FULL: "make room on its disk",
    sqlite3.SQLITE_IOERR: "look at its disk, and see that it is not on a network file system",
    sqlite3.SQLITE_NOTADB: "it is not a journal of this program: name another file in `deploy.journal`",
    sqlite3.SQLITE_READONLY: "see that this user may write to the file and to its directory",
}

_Answer = TypeVar("_Answer")


class SqliteJournal:
    """A `Journal` in one file, which `open` makes when it is not there.

    The file is readable by its owner alone, and so is its directory when that is made too. Appending waits for other
    processes up to ten seconds.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, clock: Callable[[], datetime]) -> None:
        self._path = path
        self._connection = connection
        self._clock = clock
        self._claim: Claim | None = None
        self._lock = anyio.Lock()
        self._identity = _identity(path)

    @classmethod
    async def open(cls, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Self:
        """Open the journal in this file.

        Args:
            path: the file.
            clock: tells the time of a record, in UTC.

        Raises:
            JournalError: the file cannot be made, read or written, is of a newer version, or is something else.
        """
        return cls(path, await anyio.to_thread.run_sync(_open, path), clock)

    @staticmethod
    def exists(path: Path) -> bool:
        """Return whether there is such a file, or raise `JournalError` where this user may not look."""
        with _errors_named(path), suppress(FileNotFoundError):
            _identity(path)
            return True
        return False

    async def acquire(self, deploy: str, owner: Owner) -> Claim:
        """Acquire the lease of a deploy; see `Journal.acquire`.

        Its clock is this machine's time since its start, which nobody sets; the time of day counts for an owner on
        another machine, or before the last start.
        """
        with anyio.CancelScope(shield=True), failpoints.passing("journal.acquire"):
            claim = self._claim = await self._run(lambda: self._take_lease(deploy, owner))
        return claim

    async def renew(self) -> None:
        """Put the expiry off; see `Journal.renew`."""
        claim = self._claim
        if claim is None:
            return
        sql = "UPDATE lease SET expires_at = ?, expires_s = ? WHERE deploy = ? AND epoch = ?"
        values = (_text(self._clock() + timedelta(seconds=LEASE_S)), _up_s() + LEASE_S, claim.deploy, claim.epoch)
        if await self._run(lambda: self._connection.execute(sql, values).rowcount) != 1:
            raise Fenced(claim.deploy)

    async def release(self) -> None:
        """Give the lease back."""
        claim, self._claim = self._claim, None
        if claim is not None:
            sql = "UPDATE lease SET owner = '' WHERE deploy = ? AND epoch = ?"
            with anyio.CancelScope(shield=True), failpoints.passing("journal.release"):
                await self._run(lambda: self._connection.execute(sql, (claim.deploy, claim.epoch)))

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Write one record; see `Journal.append`."""
        content = dict(data or {})
        text = json.dumps(content)
        await anyio.lowlevel.checkpoint_if_cancelled()
        deploy = deploy_of(content, self._claim)
        with anyio.CancelScope(shield=True), failpoints.passing(f"journal.{kind}"):
            seq, at = await self._run(lambda: self._insert(run_id, kind, deploy, database, text))
        return Record(seq, at, run_id, kind, database, json.loads(text), deploy)

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return every record of a run, oldest first."""
        return tuple(read_record(str(self._path), row) for row in await self._query(_RECORDS, run_id))

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return the latest runs of a deploy, newest first."""
        return tuple(read_summary(str(self._path), row) for row in await self._query(_RUNS, deploy, limit))

    async def aclose(self) -> None:
        """Close the file; repeating it does nothing."""
        with anyio.CancelScope(shield=True):
            await self._run(self._connection.close)

    async def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return await self._run(lambda: self._connection.execute(sql, values).fetchall())

    async def _run(self, work: Callable[[], _Answer]) -> _Answer:
        """Run blocking work on the connection, one at a time, off the loop."""

        def translated() -> _Answer:
            with _errors_named(self._path):
                return work()

        async with self._lock:
            return await anyio.to_thread.run_sync(translated)

    def _insert(self, *values: str | None) -> tuple[int, datetime]:
        if _identity(self._path) != self._identity:
            raise JournalError(f"{self._path}: another file stands in its place", hint=_HINTS[sqlite3.SQLITE_CANTOPEN])
        at, claim = self._clock(), self._claim
        named = dict(zip(("run_id", "kind", "deploy", "database", "data"), values, strict=True))
        fence = {"claimed": claim.deploy if claim else None, "epoch": claim.epoch if claim else None}
        # With synchronous=FULL it returns after the fsync.
        cursor = self._connection.execute(_INSERT, named | fence | {"at": _text(at)})
        if claim and cursor.rowcount != 1:
            raise Fenced(claim.deploy)
        return cursor.lastrowid or 0, at

    def _take_lease(self, deploy: str, owner: Owner) -> Claim:
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            now = self._clock()
            row = self._connection.execute(_READ_LEASE, (deploy,)).fetchone()
            epoch = row[0] if row else 0
            if row and row[1]:
                with understood(f"{self._path}: the lease of {deploy}"):
                    last, acquired_at, until = Owner(*row[1:6]), *map(datetime.fromisoformat, row[6:8])
                    is_alive = row[8] > _up_s() if _is_of_this_start(last) else until > now
                if is_alive and life_of(last) is not Life.GONE:
                    raise held(deploy, Holder(last, acquired_at))
            process = (owner.name, owner.host, owner.pid, owner.machine, owner.started)
            until = now + timedelta(seconds=LEASE_S)
            expiry = (_text(now), _text(until), _up_s() + LEASE_S)
            self._connection.execute(_TAKE_LEASE, (deploy, epoch + 1, *process, *expiry))
        return Claim(deploy, epoch + 1)


def _up_s() -> float:
    """Return the time since the machine was started, in seconds, also while it slept, where that can be told."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _is_of_this_start(owner: Owner) -> bool:
    """Return whether an owner has the same count of time as this process: containers of one machine have."""
    try:
        return owner.machine.startswith(f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} ")
    except OSError:
        return False


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of its name: what is written to a deleted one is read by nobody.

    Raises:
        FileNotFoundError: it is gone.
    """
    status = path.stat()
    return status.st_dev, status.st_ino


def _text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds")


def _open(path: Path) -> sqlite3.Connection:
    with _errors_named(path):
        _make_file(path)
        # mode=rw: a file that vanished meanwhile is an error, not a new and empty journal.
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,  # a pool of threads takes turns, held apart by the journal's lock
        )
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def _make_file(path: Path) -> None:
    _make_directory(path.parent)
    try:
        # O_EXCL also because closing a second descriptor of a live SQLite file would drop this process's locks on it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError as error:
        if path.is_dir():
            raise JournalError(f"{path}: this is a directory", hint="name a file in `deploy.journal`") from error
        return
    _sync_directory(path.parent)


def _make_directory(directory: Path) -> None:
    if directory.is_dir():
        return
    _make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(directory.parent)


def _sync_directory(directory: Path) -> None:
    """Make a new entry survive a power loss, as fsync(2) asks for."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    _check_owner(connection, path)
    _switch_to_wal(connection)
    connection.execute("PRAGMA synchronous = FULL")
    # Also shows now, and not at the first record, that the file can be written.
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        for script in _FORMATS[_pragma(connection, "user_version") :]:
            for statement in _statements(script):
                connection.execute(statement)


def _check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a file that is not a journal, before anything is changed in it."""
    version = _pragma(connection, "user_version")
    if _pragma(connection, "application_id") == _APPLICATION_ID:
        if version > _VERSION:
            raise JournalError(
                f"{path}: this journal is of format {version}, and this program knows formats up to {_VERSION}",
                hint="use the smooth-orchestrator that wrote it, or a later one",
            )
    elif version or connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise JournalError(f"{path}: this is not a journal", hint=_HINTS[sqlite3.SQLITE_NOTADB])


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Set WAL mode; when several processes make one new file, SQLite answers BUSY here without waiting."""
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _statements(script: str) -> Iterator[str]:
    """Split a script, since `executescript` would commit the transaction it is to be part of."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system raise into errors that name the file and a way out."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path}: {error}", hint=_HINTS.get(_code(error))) from error
    except OSError as error:
        raise JournalError(
            f"{error.filename or path}: {error.strerror}", hint=_HINTS[sqlite3.SQLITE_CANTOPEN]
        ) from error


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code; extended ones carry more in their upper bits, such as that a disk is full."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return sqlite3.SQLITE_FULL if code == sqlite3.SQLITE_IOERR_SHMSIZE else code & 0xFF
