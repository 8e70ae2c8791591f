"""Prepared transactions, which the coordinator ends: over asyncpg, or through a worker where that cannot connect."""

import re
from contextlib import nullcontext
from enum import Enum, auto
from typing import Final

import asyncpg

from smooth_migrations.protocol import ErrorInfo, Failed, SettlePrepared
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.names import shortened
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.run_ids import CHOSEN
from smooth_orchestrator.silence import call_unless_silent
from smooth_orchestrator.standby import CANNOT_CONNECT, NOT_LET_IN, leave, session_on

__all__ = ["Fate", "gid_of", "is_rehearsed", "run_of", "settle_prepared"]

_TIMEOUT_S: Final = 10.0
# PostgreSQL takes names of less than 200 bytes (manual, PREPARE TRANSACTION).
_LONGEST: Final = 199
# What `gid_of` makes. A name that only begins like one is another program's.
_GID: Final = re.compile(rf"smooth:({CHOSEN.pattern}):.+:[0-9]+", re.DOTALL)
# Turns on a database are numbered from one.
_REHEARSED: Final = 0
_NOT_THERE: Final = "42704"


class Fate(Enum):
    """What became of a prepared transaction that was to be ended."""

    ENDED = auto()
    GONE = auto()


def gid_of(run: Run, item: TargetRun, *, rehearses: bool = False) -> str:
    """Return the name under which a target's transaction is prepared.

    What a rehearsal has prepared is told by its name, whether or not there is a journal left, and is never committed.
    """
    epoch = _REHEARSED if rehearses else item.epoch
    gid = f"smooth:{run.run_id}:{item.name}:{epoch}"
    if len(gid.encode()) > _LONGEST:
        room = _LONGEST - len(f"smooth:{run.run_id}::{epoch}")
        gid = f"smooth:{run.run_id}:{shortened(item.name, room)}:{epoch}"
    return gid


def is_rehearsed(gid: str) -> bool:
    """Return whether a rehearsal prepared a run's transaction of this name. Pure."""
    return gid.endswith(f":{_REHEARSED}")


def run_of(gid: str) -> str | None:
    """Return the run that prepared a transaction of this name; None for a name that is no run's. Pure."""
    match = _GID.fullmatch(gid)
    return match[1] if match else None


async def settle_prepared(run: Run, fleet: Fleet, item: TargetRun, *, commits: bool) -> Fate | ErrorInfo:
    """Commit a target's prepared transaction, or roll it back. Repeating it finds it gone.

    Args:
        run: whose.
        fleet: its workers.
        item: with the transaction's `gid`.
        commits: whether it is committed.

    Returns:
        What became of it, or why it could not be ended. A session that stood by, and has committed it, is left open.
    """
    if item.target.asyncpg is None:
        return await _through_worker(run, fleet, item, commits=commits)
    # One that stands by is no further connection.
    stands_by = item.standby is not None
    try:
        async with nullcontext() if stands_by else fleet.room_on(item.target), item.at_standby:
            fate = await _end(item, commits=commits)
            if not stands_by:
                leave(item)
    except NOT_LET_IN:
        return await _through_worker(run, fleet, item, commits=commits)
    except CANNOT_CONNECT as error:
        state = getattr(error, "sqlstate", None)
        return ErrorInfo(type(error).__name__, str(error) or "no answer in time", sqlstate=state)
    return fate


async def _end(item: TargetRun, *, commits: bool) -> Fate:
    """End a prepared transaction; a session that has committed one stays, for its end takes the server's time."""
    literal = "'{}'".format((item.gid or "").replace("'", "''"))
    fate = Fate.GONE
    try:
        session = await session_on(item)
        with passing("commit_prepared" if commits else "rollback_prepared"):
            await session.execute(f"{'COMMIT' if commits else 'ROLLBACK'} PREPARED {literal}")
        fate = Fate.ENDED
    except asyncpg.UndefinedObjectError:
        pass  # somebody else has ended it
    finally:
        if not (commits and fate is Fate.ENDED):
            leave(item)
    return fate


async def _through_worker(run: Run, fleet: Fleet, item: TargetRun, *, commits: bool) -> Fate | ErrorInfo:
    try:
        worker = await fleet.living(run.plan, item.target)
        command = SettlePrepared(
            id=worker.next_id(), database=item.name, alias=item.target.alias, gid=item.gid or "", commits=commits
        )
        answer = await call_unless_silent(worker, command, _TIMEOUT_S)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    if isinstance(answer, Failed):
        return Fate.GONE if answer.error.sqlstate == _NOT_THERE else answer.error
    return Fate.ENDED
