"""What one run knows: its plan, its journal, and how far each target has come."""

import math
import time
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import anyio

from smooth_migrations.protocol import Back, Before, ContractHalf, ErrorInfo, Measured, Received, Step, TargetReport
from smooth_orchestrator.config import Tier
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.identity import Identity
from smooth_orchestrator.journal import Fenced, Journal, RecordKind
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Phase, Plan, Target
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, RunError
from smooth_orchestrator.told import Held
from smooth_orchestrator.watching import Timekeeper

if TYPE_CHECKING:
    import asyncpg

__all__ = ["Glance", "Run", "Stage", "TargetRun"]


class Stage(StrEnum):
    """How far a target has come."""

    UNTOUCHED = "untouched"
    WORKING = "working"
    HELD = "held"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    IN_DOUBT = "in_doubt"


_OUTCOMES = {
    Stage.UNTOUCHED: DatabaseOutcome.UNCHANGED,
    Stage.WORKING: DatabaseOutcome.IN_DOUBT,
    Stage.HELD: DatabaseOutcome.IN_DOUBT,
    Stage.COMMITTED: DatabaseOutcome.COMMITTED,
    Stage.ROLLED_BACK: DatabaseOutcome.ROLLED_BACK,
    Stage.FAILED: DatabaseOutcome.FAILED,
    Stage.IN_DOUBT: DatabaseOutcome.IN_DOUBT,
}


@dataclass(frozen=True, slots=True)
class Glance:
    """What the coordinator itself has seen of a database.

    Args:
        version: the server's `server_version_num`.
        slots: how many transactions the server can keep prepared.
        digest: of the migrations that are recorded.
        physical: as in `TargetReport`.
        held: digest of what is held back there; empty for nothing.
        is_settled: whether it takes writes, no run or call is at work, and none has left anything there but that.
        is_marked: whether it holds a mark of the run's id.
        marked_by: the run that the deploy's newest mark there is of; empty where there is none.
    """

    version: int
    slots: int
    digest: str
    physical: str
    held: str
    is_settled: bool
    is_marked: bool
    marked_by: str

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is held back there either."""
        return self.is_settled and not self.held


@dataclass(slots=True)
class TargetRun:
    """One target in one run.

    Args:
        target: which.
        phase: its phase.
        tier: how it is moved.
        found: what the inspection found.
        stage: how far it has come.
        steps: what was moved and stays to be undone or kept.
        permanent: of these, what is committed already.
        unapplied: what was taken back.
        error: why it failed.
        stepping: why its migrations could not run in one transaction, where each then ran, or would run, by itself.
        before: what an undo of its steps must know of the database.
        undo_error: why its worker could not undo what failed.
        is_lost: whether its worker, or a worker's answer, was lost while it was at work.
        worker: the machine of a fleet that was at work on it last.
        epoch: of the last turn on it that is known to be this run's, or to be over; None before the first.
        turn: of the last turn on it that a worker of this coordinator has told of.
        marked_by: the digest of the plan by which its marker says that the run, a deploy, has moved it.
        identity: which database it is, once it was looked at for what an interrupted run has left.
        moves_unknown: whether the run has moved it, or is about to, and its journal does not tell what.
        gid: of its transaction, once that was to be prepared.
        release: the statement that gives its lease back for its worker.
        renewal: the statement that renews its lease while its transaction stands prepared.
        prepares_early: whether it is prepared at once, for want of connections or with workers on other machines, and
            not right before the decision.
        has_standby: whether its server has room for a session of the coordinator's from then on.
        ahead: the migrations that run before the transaction, on every target first.
        together: how many of its migrations have one commit, where it was empty and is compensated.
        readied: those for which constraints or indexes are made ready then.
        leaves_steps: whether committed steps of the run may stand in the database, whatever its tier.
        left: these, as far as the database itself tells of them.
        is_prepared: whether its transaction is known to stand prepared, and needs no worker any more.
        backend_pid: its session on the server, while one is known.
        backend_start: when that session began, in seconds since 1970, by the server.
        blockers: whom that session was last seen to wait for, in words.
        locked_ms: lock hold at `locked_at_s`.
        locked_at_s: when the worker said so, on the monotonic clock.
        received: what Django's receivers made beside its steps.
        back: what a rollback takes back of a committed run.
        measured: what was seen of its transaction, where that was asked for.
        held_back: the contract halves of its steps.
        contracted: the contract halves that were done.
        is_undone: whether its committed steps were taken back in a transaction that is still open.
        is_stepwise: whether they do not go back in a transaction, but each by itself.
        lost: in words, what was written since these steps, and goes with them.
        glance: what the coordinator has seen of it in this command, if it has looked.
        physical: what its server calls it, as the coordinator has seen; empty where it has not.
        standby: the coordinator's session there that is to end what is prepared, while there is one.
        at_standby: held by whoever asks something of that session.
    """

    target: Target
    phase: Phase
    tier: Tier | None = None
    found: TargetReport | None = None
    stage: Stage = Stage.UNTOUCHED
    steps: list[Step] = field(default_factory=list)
    permanent: list[Step] = field(default_factory=list)
    unapplied: list[Step] = field(default_factory=list)
    error: ErrorInfo | None = None
    stepping: ErrorInfo | None = None
    is_lost: bool = False
    worker: str | None = None
    epoch: int | None = None
    turn: int | None = None
    marked_by: str | None = None
    identity: Identity | None = None
    moves_unknown: bool = False
    gid: str | None = None
    release: str = ""
    renewal: str = ""
    prepares_early: bool = False
    has_standby: bool = True
    ahead: tuple[str, ...] = ()
    together: int = 1
    readied: tuple[str, ...] = ()
    leaves_steps: bool = False
    left: tuple[Step, ...] = ()
    is_prepared: bool = False
    undo_error: ErrorInfo | None = None
    before: Before = field(default_factory=Before)
    backend_pid: int | None = None
    backend_start: str | None = None
    blockers: tuple[str, ...] = ()
    locked_ms: float = 0.0
    locked_at_s: float = 0.0
    received: Received = field(default_factory=Received)
    back: Back | None = None
    measured: Measured | None = None
    held_back: tuple[ContractHalf, ...] = ()
    contracted: tuple[ContractHalf, ...] = ()
    is_undone: bool = False
    is_stepwise: bool = False
    lost: tuple[str, ...] = ()
    glance: Glance | None = None
    physical: str = ""
    standby: "asyncpg.Connection | None" = None
    at_standby: anyio.Lock = field(default_factory=anyio.Lock)

    def let_go(self) -> None:
        """Forget the worker that was lost with it: another one begins it anew."""
        self.is_lost = False
        self.turn = self.backend_pid = self.backend_start = None

    @property
    def name(self) -> str:
        """The target's name."""
        return self.target.name

    @property
    def is_quiet(self) -> bool:
        """Whether it was seen that nobody is at work on it, and nobody has left anything to be settled or finalised."""
        return self.glance is not None and self.glance.is_quiet

    @property
    def has_ahead(self) -> bool:
        """Whether anything is done before the transaction."""
        return bool(self.ahead or self.readied)

    @property
    def has_work(self) -> bool:
        """Whether anything is pending."""
        return bool(self.found and self.found.pending)

    @property
    def has_moved(self) -> bool:
        """Whether it holds, or has committed, anything."""
        return bool(self.steps or self.contracted)

    @property
    def holds(self) -> Held:
        """What it holds or has committed, to be written down."""
        return Held(tuple(self.steps), self.before, self.received, self.held_back, self.contracted)

    def hold(self, held: Held) -> None:
        """Take over what a target of another time held or had committed."""
        self.steps, self.before, self.received = [*held.steps], held.before, held.received
        self.held_back, self.contracted = held.held_back, held.contracted

    @property
    def contract_pending(self) -> tuple[str, ...]:
        """What waits for `finalise`, in words."""
        found = self.found.contract_pending if self.found else ()
        is_new = self.stage is Stage.COMMITTED
        done = {(half.run_id, str(half)) for half in self.contracted} if is_new else set()
        taken_back = self.back.run_id if is_new and self.back else None
        pending = [half for half in (*found, *(self.held_back if is_new else ())) if half.run_id != taken_back]
        return tuple(str(half) for half in pending if (half.run_id, str(half)) not in done)

    @property
    def lock_hold_ms(self) -> float:
        """For how long strong locks have been held, until now or until they were released."""
        if self.stage is Stage.HELD and self.locked_ms:
            return self.locked_ms + (time.monotonic() - self.locked_at_s) * 1000
        return self.locked_ms

    @property
    def _outcome(self) -> DatabaseOutcome:
        # Somebody else may have brought it up to date between the inspection and our turn.
        if self.stage is Stage.COMMITTED and not (self.has_moved or self.moves_unknown):
            return DatabaseOutcome.UNCHANGED
        return _OUTCOMES[self.stage]

    def report(self) -> DatabaseReport:
        """Return what users are told of this target."""
        kept = self.stage in {Stage.COMMITTED, Stage.IN_DOUBT}
        return DatabaseReport(
            database=self.name,
            project=self.target.project,
            alias=self.target.alias,
            vendor=self.target.vendor,
            phase=self.phase.name,
            tier=str(self.tier) if self.tier else None,
            outcome=self._outcome,
            applied=tuple(str(step) for step in self.steps if kept and not step.backwards),
            unapplied=(
                *(str(step) for step in self.steps if kept and step.backwards),
                *(str(step) for step in self.unapplied if not step.backwards),
            ),
            contract_pending=self.contract_pending,
            lock_hold_ms=round(self.lock_hold_ms, 1),
            error=RunError.of(self.error) if self.error else None,
            extra={"worker": self.worker} if self.worker else {},
        )


class Run:
    """One run of one plan.

    Args:
        plan: what to do.
        run_id: this run's name.
        journal: where what happens is written before it happens.
        watcher: hears when that was; None for an earlier run, of which it has heard nothing.
    """

    def __init__(self, plan: Plan, run_id: str, journal: Journal, *, watcher: Timekeeper | None = None) -> None:
        self.run_id = run_id
        self.journal = journal
        self.watcher = watcher
        self.replan(plan)
        self.stopping = anyio.Event()
        self.cause: ErrorInfo | None = None
        self.cause_database: str | None = None
        self.further: list[RunError] = []
        # The databases that an operator has put right by hand, and that waited for that.
        self.accepted: set[str] = set()
        # Those that one has named as such.
        self.accepts: AbstractSet[str] = frozenset()
        # Those that still wait for it.
        self.unaccepted: set[str] = set()
        self.decided = False
        self.is_fenced = False
        self.compares = True
        self.replays = True
        # What is committed and goes back is told of; whoever settles it later may have to be told to lose it.
        self.discards = True
        self.takes_back: str | None = None
        self.finalises: tuple[str, ...] | None = None
        self.interrupted: ErrorInfo | None = None
        self.settled_by: tuple[Decision, ...] = ()
        # When the first of the locks that are held will have been so for too long, on the monotonic clock.
        self.locks_until_s = math.inf
        self.started_at, self.started_s = datetime.now(UTC), time.monotonic()

    def replan(self, plan: Plan) -> None:
        """Take another plan instead, before anything was done: nothing is known of its databases yet."""
        self.plan = plan
        self.targets = [TargetRun(target, phase) for phase in plan.phases for target in phase.targets]

    def look_again(self) -> None:
        """Forget what was seen of the targets, since something has been done there."""
        for item in self.targets:
            item.glance = None

    def of(self, phase: Phase) -> list[TargetRun]:
        """Return a phase's targets that have work to do, or to be settled."""
        return [
            item
            for item in self.targets
            if item.phase is phase and (item.has_work or item.stage is not Stage.UNTOUCHED)
        ]

    def note_locks(self, item: TargetRun) -> None:
        """Take note of how long the locks may go on to be held that a target holds at the barrier. Idempotent."""
        if item.locked_ms and item.tier is not Tier.COMPENSATED:
            left_ms = self.plan.max_lock_hold_ms - item.locked_ms
            self.locks_until_s = min(self.locks_until_s, item.locked_at_s + left_ms / 1000)

    def fail(self, error: ErrorInfo, database: str | None = None) -> None:
        """Note a failure, and let nothing else begin. The first is the cause."""
        self.is_fenced = self.is_fenced or error.type == Fenced.code
        if self.cause is None:
            self.cause, self.cause_database = error, database
        elif error.type != "Interrupted" and (told := RunError.of(error, database=database)) not in self.further:
            self.further.append(told)
        self.stopping.set()

    def interrupt(self, error: ErrorInfo) -> None:
        """Stop the run, or, while a decision to commit is carried out, have it stop after that."""
        self.interrupted = self.interrupted or error
        self.obey_interruption()

    def obey_interruption(self) -> None:
        """Stop the run if it was interrupted and no decision is being carried out."""
        if self.interrupted is not None and not self.decided and not self.stopping.is_set():
            self.fail(self.interrupted)

    async def announce(
        self, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> bool:
        """Write a record of what is about to happen; without it the run fails, and the caller lets it be.

        Returns:
            Whether it was written.
        """
        try:
            await self.journal.append(self.run_id, kind, database=database, data=data)
        except JournalError as error:
            self.fail(ErrorInfo(error.code, error.message, hint=error.hint), database)
            return False
        return True

    async def note(
        self, kind: RecordKind, *, database: str | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        """Write a record of what has happened already.

        A journal that fails cannot unmake it, so a failure is logged and reported, and not raised.
        """
        try:
            await self.journal.append(self.run_id, kind, database=database, data=data)
        except JournalError as error:
            failure = ErrorInfo(error.code, error.message, hint=error.hint)
            self.further.append(RunError.of(failure, database=database))
            get_logger().error(EventName.LOG_MESSAGE, logger="journal", message=error.message, error=failure)

    @property
    def phases(self) -> list[str]:
        """The names of all phases."""
        return [phase.name for phase in self.plan.phases]

    def in_stage(self, *stages: Stage, among: Iterable[TargetRun] | None = None) -> list[TargetRun]:
        """Return the targets in one of these stages."""
        return [item for item in (self.targets if among is None else among) if item.stage in stages]

    @property
    def duration_ms(self) -> float:
        """How long the run has taken."""
        return round((time.monotonic() - self.started_s) * 1000, 1)
