"""What every journal keeps and promises: records that are durable before the effect they announce, and never change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, Self

from smooth_migrations.protocol.owner import Holder, Owner
from smooth_orchestrator.errors import JournalError, Locked

__all__ = [
    "LEASE_S",
    "LOOK_BACK",
    "Claim",
    "Fenced",
    "Journal",
    "JournalUnsureError",
    "Moment",
    "Record",
    "RecordKind",
    "RunSummary",
    "deploy_of",
    "held",
]

LEASE_S = 15.0
"""How long a lease lasts without a heartbeat, in seconds."""

LOOK_BACK = 1000
"""How many runs are looked through for one that decides something; lists of runs show fewer."""

# When a record was written, and its data.
Moment = tuple[datetime, Mapping[str, Any]]


class RecordKind(StrEnum):
    """What a record says has happened or is about to.

    `STEP` is a compensated step that has become permanent (`app`, `name`, `backwards`, `fake`), `UNSTEP` one that was
    taken back, `HELD` a target that reached the barrier (`steps`, `before`), `PREPARING` one whose transaction is about
    to be prepared (`gid`), `COMMITTED` one that is new (as `HELD`). `RUN_STARTED` carries `deploy`, `command`,
    `digest`, `targets`, their `identities`, those `missing` as yet, the plan's `phases` (each a `name` and its
    `databases`), `commit` and `on_failure`, in a rollback `takes_back`, and `adopted` where it was written by a
    recovery, of a run that the journal did not know; `DECISION` carries `decision` (`commit` or `abort`) and `scope`
    (`deploy` or a phase's name); `RUN_FINISHED` carries `outcome`, `exit_code`, `report`, and where its run
    was heard to its end a `timeline`.
    """

    RUN_STARTED = "run_started"
    PHASE_STARTED = "phase_started"
    INTENT = "intent"
    STEP = "step"
    UNSTEP = "unstep"
    HELD = "held"
    PREPARING = "preparing"
    DECISION = "decision"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    RUN_FINISHED = "run_finished"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of a journal.

    Args:
        seq: its place in the order of the journal; gaps are possible.
        at: when it was written, by the journal's own clock, in UTC.
        run_id: the run it belongs to.
        kind: what it says.
        database: the target it speaks of, where there is one.
        data: JSON values, without secrets.
        deploy: whose lease its writer held: two deploys may have given their runs one id.
        place: where it stands, for people.
    """

    seq: int
    at: datetime
    run_id: str
    kind: RecordKind
    database: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    deploy: str | None = None
    place: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run as its first and last records tell it; what ended it is None while it has not ended.

    Args:
        run_id: the run.
        deploy: the deploy's name.
        command: the command that began it.
        digest: the plan's digest.
        started_at: when it began; when it last began, for a run that was begun again.
        finished_at: when it ended.
        outcome: a `RunOutcome`.
        exit_code: the command's.
        error: the report's `error`.
    """

    run_id: str
    deploy: str
    command: str
    digest: str
    started_at: datetime
    finished_at: datetime | None = None
    outcome: str | None = None
    exit_code: int | None = None
    error: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, run_id: str, started: Moment, finished: Moment | None) -> Self:
        """Return the summary that a `RUN_STARTED` and the last `RUN_FINISHED` after it make."""
        started_at, opening = started
        finished_at, closing = finished or (None, {})
        return cls(
            run_id=run_id,
            deploy=opening["deploy"],
            command=opening["command"],
            digest=opening["digest"],
            started_at=started_at,
            finished_at=finished_at,
            outcome=closing.get("outcome"),
            exit_code=closing.get("exit_code"),
            error=(closing.get("report") or {}).get("error"),
        )


class JournalUnsureError(JournalError):
    """A record was sent and no answer came back: it may stand in the journal or not."""

    code = "journal_unsure"
    exit_code = 4


class Fenced(JournalError):  # noqa: N818 - named by what happened
    """The lease went to another coordinator: nothing of this one's is written any more."""

    code = "lease_lost"
    exit_code = 5

    def __init__(self, deploy: str) -> None:
        super().__init__(
            f"the lease of the deploy {deploy!r} was lost: another coordinator has it",
            hint="this one was silent for longer than its lease; see `smooth-orchestrate runs PLAN`",
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease that was acquired.

    Args:
        deploy: whose.
        epoch: the fencing token: greater than that of any earlier owner.
    """

    deploy: str
    epoch: int


def deploy_of(data: Mapping[str, Any], claim: Claim | None) -> str | None:
    """Return the deploy that a record belongs to: what it says itself, else the one whose lease its writer holds."""
    return data.get("deploy") or (claim.deploy if claim else None)


def held(deploy: str, holder: Holder) -> Locked:
    """Return the error that names who holds a deploy's lease."""
    return Locked(f"another run of the deploy {deploy!r} is at work: {holder}", hint="wait for it, or end that process")


class Journal(Protocol):
    """An append-only list of records, and the lease of who may write to it.

    Safe to use from several tasks. Every method raises `JournalError` when the journal cannot do its part.
    """

    async def acquire(self, deploy: str, owner: Owner) -> Claim:
        """Acquire the lease of a deploy; from here on `append` writes only while it is ours.

        It is free when it was given back, when its owner's process is gone from this machine, and when its last
        heartbeat is older than `LEASE_S`, by the journal's clock.

        Raises:
            Locked: somebody else holds it.
        """

    async def renew(self) -> None:
        """Put the expiry of the acquired lease off by `LEASE_S`; without one it does nothing.

        Raises:
            Fenced: somebody else has it.
        """

    async def release(self) -> None:
        """Give the acquired lease back, if it is still ours. Repeating it does nothing."""

    async def append(
        self, run_id: str, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> Record:
        """Write one record.

        When this returns, the record survives the loss of this process and of the machine's power. When it raises the
        cancellation of its task, nothing was written. Once begun it cannot be cancelled.

        Args:
            run_id: the run it belongs to.
            kind: what it says.
            database: the target it speaks of.
            data: JSON values, already masked.

        Returns:
            The record as it stands in the journal.

        Raises:
            JournalError: it was not written.
            Fenced: it was not written, since the acquired lease is somebody else's.
            JournalUnsureError: nobody can tell whether it was written.
        """

    async def records(self, run_id: str) -> tuple[Record, ...]:
        """Return every record of a run, oldest first."""

    async def runs(self, deploy: str, *, limit: int = 50) -> tuple[RunSummary, ...]:
        """Return the latest runs of a deploy, newest first."""

    async def aclose(self) -> None:
        """Let go of the file or the connection; repeating it does nothing."""
