"""What a worker says."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from smooth_migrations.protocol.failures import ErrorInfo
from smooth_migrations.protocol.findings import DatabaseFacts, Measured, MigrationFinding, PendingMigration, Question
from smooth_migrations.protocol.linting import LintReport
from smooth_migrations.protocol.values import Before, ContractHalf, Left, Marker, PreparedTransaction, Received, Step

__all__ = [
    "Code",
    "Copied",
    "Done",
    "Event",
    "Failed",
    "Hello",
    "Leased",
    "Linted",
    "LockRetry",
    "MigrationApplied",
    "MigrationFailed",
    "MigrationStarted",
    "MigrationUnapplied",
    "Progress",
    "Rows",
    "Session",
    "Standing",
    "Stepping",
    "TargetReport",
    "UnapplyFailed",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of what a worker says; `id` is the command's, 0 before any. `final` ends the command."""

    type: ClassVar[str]
    final: ClassVar[bool] = False
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Event):
    """What the worker is; sent first, as soon as it has read the settings, and again once its apps are loaded too.

    Only then does it hear what it is told. It is sent once where settings alone do not tell which databases there are.

    Args:
        protocol: the version it speaks.
        pid: its process.
        python: its interpreter's version.
        django: its Django's version.
        version: its smooth-orchestrator's version.
        databases: what the project's settings name.
        has_routers: whether the project has DATABASE_ROUTERS.
        secrets: what must not be shown to anybody: passwords and the secret key of the settings.
        is_set_up: whether the apps are loaded: an app may have changed what the settings said.
        knows_copy: whether it knows `Copy`.
    """

    type: ClassVar[str] = "hello"
    id: int = 0
    protocol: int
    pid: int
    python: str
    django: str
    version: str
    databases: tuple[DatabaseFacts, ...]
    has_routers: bool
    secrets: tuple[str, ...] = field(default=(), repr=False)
    is_set_up: bool = True
    knows_copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Event):
    """The server-side session at work, for finding who blocks it (`pg_blocking_pids`) and for ending it.

    Args:
        backend_pid: its process on the server.
        backend_start: when it began, in seconds since 1970: a process id alone may be given again.
    """

    type: ClassVar[str] = "session"
    backend_pid: int
    backend_start: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased(Event):
    """It is our turn on this database.

    Args:
        epoch: the fencing token; 0 where there is nobody to keep out.
        release: the statement that gives the turn back, for whoever has ended the session of a lost worker; it changes
            nothing once somebody else has had one. Empty where there is none.
    """

    type: ClassVar[str] = "leased"
    epoch: int
    release: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepping(Event):
    """One transaction cannot hold the migrations: each is committed by itself from here on."""

    type: ClassVar[str] = "stepping"
    error: ErrorInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """A sign of life: statements finished so far; at most one a second."""

    type: ClassVar[str] = "progress"
    statements: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStarted(Event):
    """A migration begins."""

    type: ClassVar[str] = "migration_started"
    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationApplied(Event):
    """A migration ran and is recorded.

    Args:
        step: which.
        duration_ms: how long.
        committed: whether it is already permanent (a compensated step).
        earlier: what has become permanent with it, in order, having waited for it.
    """

    type: ClassVar[str] = "migration_applied"
    step: Step
    duration_ms: float
    committed: bool = False
    earlier: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFailed(Event):
    """A migration raised; its `Failed` follows after the undo."""

    type: ClassVar[str] = "migration_failed"
    step: Step
    duration_ms: float
    error: ErrorInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationUnapplied(Event):
    """A committed step was taken back."""

    type: ClassVar[str] = "migration_unapplied"
    step: Step
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnapplyFailed(Event):
    """A committed step could not be taken back."""

    type: ClassVar[str] = "unapply_failed"
    step: Step
    error: ErrorInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class LockRetry(Event):
    """A lock time-out, deadlock or serialization failure; the whole transaction is tried again after `delay_ms`."""

    type: ClassVar[str] = "lock_retry"
    attempt: int
    delay_ms: float
    error: ErrorInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetReport(Event):
    """What `Inspect` found.

    Args:
        server_version: as the server says it.
        fresh: whether nothing has ever been migrated there.
        before: what an undo must know of it.
        physical: what the server or the file system calls it, the same by whatever name it was reached; or empty.
        is_missing: whether it is a file that is not there yet.
        applied: `app.name` of every recorded migration.
        pending: in the order in which they would run.
        findings: what refuses the deploy.
        lock_entries: of PostgreSQL's lock table, about how many one transaction of all that is pending takes.
        lock_entries_each: how many the one pending migration takes that takes most.
        prepared_slots: how many transactions the server can keep prepared; 0 where it cannot.
        prepared: the transactions that stand so on its server, whoever's, the oldest first.
        contract_pending: what is held back here, in order.
        sessions: the application names of whoever else is connected, where the server tells.
        left: what a call has left there that has not ended: it is at work, was cut off, or could not be taken back.
        asked: beside its records and what is held back there, all that was asked of the database to tell what is
            pending: another one with the same answers has the same. None where that is not known.
    """

    type: ClassVar[str] = "target_report"
    final: ClassVar[bool] = True
    vendor: str
    server_version: str
    fresh: bool = False
    before: Before = field(default_factory=Before)
    physical: str = ""
    is_missing: bool = False
    applied: tuple[str, ...] = ()
    pending: tuple[PendingMigration, ...] = ()
    findings: tuple[MigrationFinding, ...] = ()
    lock_entries: int = 0
    lock_entries_each: int = 0
    prepared_slots: int = 0
    prepared: tuple[PreparedTransaction, ...] = ()
    contract_pending: tuple[ContractHalf, ...] = ()
    sessions: tuple[str, ...] = ()
    left: Left | None = None
    asked: tuple[Question, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Linted(Event):
    """Answer to `Lint`."""

    type: ClassVar[str] = "linted"
    final: ClassVar[bool] = True
    report: LintReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing(Event):
    """What `Look` found.

    Args:
        epoch: of the last turn that anybody has had on it.
        markers: of the runs that have moved this database for good.
        elsewhere: other deploys by whose runs of these ids it was moved.
        gids: prepared transactions of this program's in this database.
        unfinished: the run whose committed steps still await its decision, or whose process was killed.
        steps: what these are, in order, with the one that was at work.
        holder: who is at work on this database at this moment, in words; None when nobody is.
        held_by: the run that is, by its id.
        physical: as in `TargetReport`.
        is_missing: whether it is a file that is not there; nothing is known of it then.
    """

    type: ClassVar[str] = "standing"
    final: ClassVar[bool] = True
    epoch: int
    markers: tuple[Marker, ...] = ()
    elsewhere: tuple[str, ...] = ()
    gids: tuple[str, ...] = ()
    unfinished: str | None = None
    steps: tuple[Step, ...] = ()
    holder: str | None = None
    held_by: str | None = None
    physical: str = ""
    is_missing: bool = False

    def marker(self, run_id: str) -> Marker | None:
        """Return a run's, if it has moved this database."""
        return next((each for each in self.markers if each.run_id == run_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows(Event):
    """What `Fetch` read, one mapping a row, of JSON values."""

    type: ClassVar[str] = "rows"
    final: ClassVar[bool] = True
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code(Event):
    """What `AskCode` asks.

    Args:
        digest: of the migrations' names and files; the same wherever these are the same.
    """

    type: ClassVar[str] = "code"
    final: ClassVar[bool] = True
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied(Event):
    """There is another worker now, which says `Hello` over a connection of its own.

    Args:
        pid: its process; it is left to be looked at when it has ended, as long as this one lives.
    """

    type: ClassVar[str] = "copied"
    final: ClassVar[bool] = True
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Event):
    """A command succeeded.

    Args:
        steps: what this command moved, in order.
        committed: of them, how many are permanent already (compensated).
        unapplied: what an undo took back, in order.
        locked_ms: for how long strong locks on tables that existed before have been held so far.
        before: what an undo of `steps` must know of the database, as it was when they began.
        received: what Django's receivers made beside, where the call was held to the end.
        measured: what was seen of it, where that was asked for.
        held_back: the contract halves of what it moved.
        contracted: the contract halves that it did.
        renewal: the statement by which the lease's keeper renews it; it returns a row as long as the lease is its.
        lost: in words, what was written since an undo's steps, and went with them.
        is_held: whether what was taken back is so only when that is committed.
        is_accepted: whether an operator had taken it back by hand, and it was forgotten.
    """

    type: ClassVar[str] = "done"
    final: ClassVar[bool] = True
    steps: tuple[Step, ...] = ()
    committed: int = 0
    unapplied: tuple[Step, ...] = ()
    locked_ms: float = 0.0
    before: Before = field(default_factory=Before)
    received: Received = field(default_factory=Received)
    measured: Measured | None = None
    held_back: tuple[ContractHalf, ...] = ()
    contracted: tuple[ContractHalf, ...] = ()
    renewal: str = ""
    lost: tuple[str, ...] = ()
    is_held: bool = False
    is_accepted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(Event):
    """A command failed.

    Args:
        error: the first cause.
        restored: whether this database is as it was before the command.
        unapplied: what the undo took back, in order.
        remaining: committed steps that could not be taken back.
        refused: whether it was refused before anything ran.
    """

    type: ClassVar[str] = "failed"
    final: ClassVar[bool] = True
    error: ErrorInfo
    restored: bool = True
    unapplied: tuple[Step, ...] = ()
    remaining: tuple[Step, ...] = ()
    refused: bool = False
