"""A journal in a PostgreSQL database, for pipelines whose machines vanish with their files."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

import anyio
import anyio.lowlevel
import asyncpg

from smooth_migrations.protocol import failpoints
from smooth_migrations.protocol.owner import Holder, Life, Owner, life_of
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.journal.address import shown
from smooth_orchestrator.journal.base import (
    LEASE_S,
    Claim,
    Fenced,
    JournalUnsureError,
    Record,
    RecordKind,
    RunSummary,
    deploy_of,
    held,
)
from smooth_orchestrator.journal.none import NoJournal
from smooth_orchestrator.journal.stored import read_record, read_summary
from smooth_orchestrator.journal.together import Together

__all__ = ["PostgresJournal"]

_VERSION: Final = 2
_CONNECT_TIMEOUT_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 10.0
_PATIENCE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 2.0

# `data` is json and not jsonb: jsonb refuses \u0000 and lone surrogates, which a project's error message may hold.
# What makes each format of the one before it.
_FORMATS: Final = (
    """
CREATE TABLE smooth_journal_meta (version integer NOT NULL);
CREATE TABLE smooth_journal (
    seq bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    run_id text NOT NULL,
    kind text NOT NULL,
    deploy text,
    database text,
    data json NOT NULL,
    id uuid NOT NULL UNIQUE
);
CREATE INDEX smooth_journal_run ON smooth_journal (run_id, seq);
CREATE INDEX smooth_journal_deploy ON smooth_journal (deploy, run_id, seq) WHERE kind = 'run_started';
CREATE FUNCTION smooth_journal_refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$;
CREATE TRIGGER smooth_journal_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON smooth_journal
    FOR EACH STATEMENT EXECUTE FUNCTION smooth_journal_refuse();
""",
    """
CREATE TABLE smooth_journal_lease (
    deploy text PRIMARY KEY,
    epoch bigint NOT NULL,
    owner text NOT NULL,
    host text NOT NULL,
    pid bigint NOT NULL,
    machine text NOT NULL,
    started text NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
);
""",
)

# CREATE TABLE IF NOT EXISTS can still fail when two sessions run it at once; a lock of the transaction makes them take
# turns, also behind a pooler.
_SCHEMA_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('smooth_journal'))"

# Not to_regclass: asked again in one session, it may remember that there was no such table.
_EXISTS: Final = """
SELECT EXISTS (SELECT FROM pg_class WHERE relname = 'smooth_journal_meta' AND pg_table_is_visible(oid))
"""

# Those who wait are written together, in the order of the arrays. Whatever the server's or the user's default is: a
# commit is answered when it is on disk.
_INSERT: Final = """
WITH ours AS MATERIALIZED (SELECT set_config('synchronous_commit', 'on', true) {whose})
INSERT INTO smooth_journal (id, run_id, kind, deploy, database, data)
SELECT r.id, r.run_id, r.kind, r.deploy, r.database, r.data
FROM ours, unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::json[]) WITH ORDINALITY
    AS r (id, run_id, kind, deploy, database, data, number)
ORDER BY r.number
ON CONFLICT (id) DO NOTHING RETURNING id, seq, at
"""
_WRITTEN: Final = "SELECT id, seq, at FROM smooth_journal WHERE id = ANY($1::uuid[])"

# The next owner waits for a transaction that has seen the lease to be ours, and a heartbeat does not.
_OURS: Final = "FROM smooth_journal_lease WHERE deploy = $7 AND epoch = $8 FOR KEY SHARE"
_READ_LEASE: Final = """
SELECT epoch, owner, host, pid, machine, started, acquired_at, expires_at > clock_timestamp() AS is_alive
FROM smooth_journal_lease WHERE deploy = $1 FOR UPDATE
"""
_MAKE_LEASE: Final = """
INSERT INTO smooth_journal_lease VALUES ($1, 0, '', '', 0, '', '', clock_timestamp(), clock_timestamp())
ON CONFLICT DO NOTHING
"""
_TAKE_LEASE: Final = """
UPDATE smooth_journal_lease SET epoch = $2, owner = $3, host = $4, pid = $5, machine = $6, started = $7,
    acquired_at = clock_timestamp(), expires_at = clock_timestamp() + $8::float8 * interval '1 second' WHERE deploy = $1
"""
_RENEW_LEASE: Final = """
UPDATE smooth_journal_lease SET expires_at = clock_timestamp() + $3::float8 * interval '1 second'
WHERE deploy = $1 AND epoch = $2
"""
_RELEASE_LEASE: Final = "UPDATE smooth_journal_lease SET owner = '' WHERE deploy = $1 AND epoch = $2"

_RECORDS: Final = """
SELECT seq, at, run_id, kind, database, data, deploy FROM smooth_journal WHERE run_id = $1 ORDER BY seq
"""
_RUNS: Final = """
SELECT s.seq, s.at, s.run_id, s.kind, s.database, s.data, s.deploy,
       f.seq, f.at, f.run_id, f.kind, f.database, f.data, f.deploy
FROM (SELECT max(seq) AS seq FROM smooth_journal WHERE kind = 'run_started' AND deploy = $1 GROUP BY run_id
      ORDER BY 1 DESC LIMIT $2) AS newest
JOIN smooth_journal AS s ON s.seq = newest.seq
LEFT JOIN smooth_journal AS f ON f.seq =
    (SELECT max(seq) FROM smooth_journal WHERE run_id = s.run_id AND kind = 'run_finished' AND seq > s.seq
        AND coalesce(deploy, s.deploy) = s.deploy)
ORDER BY s.seq DESC
"""

_AWAY: Final = "see that the server is up and that `deploy.journal` names it, its database and its user"

_HINTS: Final = {
    "25006": "name a server in `deploy.journal` that takes writes: this one only reads",
    "28000": "see that its server lets this user in (pg_hba.conf), from here and to this database",
    "28P01": "see which password `deploy.journal`, PGPASSWORD or PGPASSFILE gives",
    "3D000": "make that database, or name another one in `deploy.journal`",
    "42501": "grant this user SELECT, INSERT and UPDATE on the tables smooth_journal…, and USAGE on their sequence",
    "42P01": (
        "its tables are gone: restore them from a backup; or drop what is left of smooth_journal…, and "
        "`smooth-orchestrate recover PLAN` settles what the databases show"
    ),
    "53100": "make room on the disk of its server",
}

# Errors after which nobody knows whether the server did what it was asked.
_LOST: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    OSError,  # also TimeoutError
    OverflowError,  # a port that is none
)

if TYPE_CHECKING:
    # A generic class only for type checkers: at run time it cannot be subscripted.
    _Connection = asyncpg.Connection[asyncpg.Record]

_Answer = TypeVar("_Answer")
# A record's values, from its id on; its number, and when it was written.
_Row = tuple[object, ...]
_Place = tuple[int, datetime]


class PostgresJournal:
    """A `Journal` in tables named `smooth_journal…`, which `open` makes when they are missing.

    It holds one connection and opens it again when it was lost. No state of a session is relied on, so a transaction
    pooler may stand in between. The password may come from the address, from `PGPASSWORD` or from a password file.
    """

    def __init__(self, url: str, patience_s: float) -> None:
        self._url = url
        self._place, self._masker = shown(url)
        self._patience_s = patience_s
        self._claim: Claim | None = None
        self._connection: _Connection | None = None
        self._lock = anyio.Lock()
        self._writing = Together[_Row, _Place](self._lock)
        self._closed = False

    @classmethod
    async def open(
        cls, url: str, *, makes_tables: bool = True, patience_s: float = _PATIENCE_S
    ) -> "PostgresJournal | NoJournal":
        """Connect, and make the tables when they are missing.

        They are made in one transaction under an advisory lock of that transaction: safe to repeat and to run at once.

        Args:
            url: `postgresql://user@host/database`.
            makes_tables: whether a journal that is not there yet is begun; without that it is one without records.
            patience_s: for how long a lost server is tried again by a later call.

        Raises:
            JournalError: the server cannot be reached, refuses, or holds a journal of a newer version.
        """
        journal = cls(url, patience_s)
        try:
            if not await _look_for_tables(await journal._connected(), journal._place, makes_them=makes_tables):
                await journal.aclose()
                return NoJournal()
        except (asyncpg.PostgresError, ValueError, *_LOST) as error:
            journal._drop()
            raise journal._named(error) from error
        except BaseException:
            journal._drop()
            raise
        return journal

    async def acquire(self, deploy: str, owner: Owner) -> Claim:
        """Acquire the lease of a deploy; see `Journal.acquire`. Its clock is the server's."""
        with anyio.CancelScope(shield=True), failpoints.passing("journal.acquire"):
            claim = self._claim = await self._run(lambda connection: _take_lease(connection, deploy, owner))
        return claim

    async def renew(self) -> None:
        """Put the expiry off; see `Journal.renew`."""
        claim = self._claim
        if claim is None:
            return
        tag = await self._run(lambda connection: connection.execute(_RENEW_LEASE, claim.deploy, claim.epoch, LEASE_S))
        if tag != "UPDATE 1":
            raise Fenced(claim.deploy)

    async def release(self) -> None:
        """Give the lease back."""
        claim, self._claim = self._claim, None
        if claim is not None:
            with anyio.CancelScope(shield=True), failpoints.passing("journal.release"):
                await self._run(lambda connection: connection.execute(_RELEASE_LEASE, claim.deploy, claim.epoch))

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Write one record; see `Journal.append`.

        When the connection is lost meanwhile the same record is sent again; its id lets it be written only once.
        """
        content = dict(data or {})
        text = json.dumps(content)
        deploy = deploy_of(content, self._claim)
        values = (uuid4(), run_id, kind, deploy, database, text)
        await anyio.lowlevel.checkpoint_if_cancelled()
        with anyio.CancelScope(shield=True), failpoints.passing(f"journal.{kind}"):
            seq, at = await self._writing.do(values, self._write)
        return Record(seq, at, run_id, kind, database, json.loads(text), deploy)

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return every record of a run, oldest first."""
        rows = await self._run(lambda connection: connection.fetch(_RECORDS, run_id))
        return tuple(read_record(self._place, [*row]) for row in rows)

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return the latest runs of a deploy, newest first."""
        rows = await self._run(lambda connection: connection.fetch(_RUNS, deploy, limit))
        return tuple(read_summary(self._place, [*row]) for row in rows)

    async def aclose(self) -> None:
        """Close the connection; repeating it does nothing."""
        self._closed = True
        with anyio.CancelScope(shield=True):
            async with self._lock:
                if self._connection is not None:
                    with suppress(asyncpg.PostgresError, *_LOST):
                        await self._connection.close(timeout=_COMMAND_TIMEOUT_S)
                    self._drop()

    async def _write(self, rows: Sequence[_Row]) -> Sequence[_Place]:
        return await self._try(lambda connection: _insert(connection, rows, self._claim), writes=True)

    async def _run(self, work: Callable[["_Connection"], Awaitable[_Answer]]) -> _Answer:
        """Do work on the connection, one at a time."""
        async with self._lock:
            return await self._try(work)

    async def _try(self, work: Callable[["_Connection"], Awaitable[_Answer]], *, writes: bool = False) -> _Answer:
        """Do work on the connection, which is the caller's, again while the server is away and patience lasts."""
        deadline = anyio.current_time() + self._patience_s
        pause_s = 0.1
        sent = lost = False
        if self._closed:
            raise JournalError(f"{self._place}: the journal is closed")
        while True:
            try:
                connection = await self._connected()
                sent = writes
                return await work(connection)
            except (asyncpg.PostgresError, ValueError, *_LOST) as error:
                if not isinstance(error, _LOST):
                    # An earlier attempt may have been answered where nobody heard it.
                    raise self._named(error, unsure=lost) from error
                lost = sent
                self._drop()
                if anyio.current_time() + pause_s > deadline:
                    raise self._named(error, unsure=sent) from error
            await anyio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _connected(self) -> "_Connection":
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._url,
                timeout=_CONNECT_TIMEOUT_S,
                command_timeout=_COMMAND_TIMEOUT_S,
                statement_cache_size=0,  # a pooler may give the next statement to another session
                server_settings={"application_name": "smooth-orchestrate journal"},
            )
        return self._connection

    def _drop(self) -> None:
        """Forget a connection in an unknown state."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _named(self, error: Exception, *, unsure: bool = False) -> JournalError:
        words = self._masker.text(str(error) or "no answer in time")
        if unsure:
            return JournalUnsureError(
                f"{self._place}: it cannot be told whether a record was written: {words}", hint=_AWAY
            )
        hint = _AWAY if isinstance(error, _LOST) else _HINTS.get(getattr(error, "sqlstate", ""))
        return JournalError(f"{self._place}: {words}", hint=hint)


async def _look_for_tables(connection: "_Connection", place: str, *, makes_them: bool) -> bool:
    """Check the version, and create what is missing where that is wanted; return whether the tables are there.

    A user without the right to create needs none when all is there.
    """
    found = await _version(connection, place)
    if found > _VERSION:
        raise JournalError(
            f"{place}: this journal is of format {found}, and this program knows formats up to {_VERSION}",
            hint="use the smooth-orchestrator that wrote it, or a later one",
        )
    if found == _VERSION or not makes_them:
        return found > 0
    async with connection.transaction():
        await connection.execute(_SCHEMA_LOCK)
        for script in _FORMATS[await _version(connection, place) :]:
            await connection.execute(script)
        await connection.execute("DELETE FROM smooth_journal_meta")
        await connection.execute("INSERT INTO smooth_journal_meta VALUES ($1)", _VERSION)
    return True


async def _version(connection: "_Connection", place: str) -> int:
    if not await connection.fetchval(_EXISTS):
        return 0
    found = await connection.fetchval("SELECT max(version) FROM smooth_journal_meta")
    if found is None:
        raise JournalError(
            f"{place}: smooth_journal_meta is empty, and nobody can tell the journal's format",
            hint="restore it from a backup, or name another database in `deploy.journal`",
        )
    return int(found)


async def _take_lease(connection: "_Connection", deploy: str, owner: Owner) -> Claim:
    """Take a lease that is free; one whose answer was lost is found to be this owner's already."""
    async with connection.transaction():
        await connection.execute(_MAKE_LEASE, deploy)
        (row,) = await connection.fetch(_READ_LEASE, deploy)
        last = Owner(row["owner"], row["host"], row["pid"], row["machine"], row["started"])
        if last.name and last != owner and row["is_alive"] and life_of(last) is not Life.GONE:
            raise held(deploy, Holder(last, row["acquired_at"]))
        epoch = row["epoch"] + 1
        process = (owner.name, owner.host, owner.pid, owner.machine, owner.started)
        await connection.execute(_TAKE_LEASE, deploy, epoch, *process, LEASE_S)
    return Claim(deploy, epoch)


async def _insert(connection: "_Connection", rows: Sequence[_Row], claim: Claim | None) -> Sequence[_Place]:
    """Write records in one transaction."""
    columns = [[*column] for column in zip(*rows, strict=True)]
    sql, whose = _INSERT.format(whose=_OURS if claim else ""), (claim.deploy, claim.epoch) if claim else ()
    async with connection.transaction():
        written = await connection.fetch(sql, *columns, *whose)
        if len(written) < len(rows):
            # They may have been written while the lease was ours, with an answer that was lost.
            written += await connection.fetch(_WRITTEN, columns[0])
    found = {row["id"]: (row["seq"], row["at"]) for row in written}
    if claim and len(found) < len(rows):
        raise Fenced(claim.deploy)
    return [found[row[0]] for row in rows]
