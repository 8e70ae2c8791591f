"""Databases, and the journal, as far as the fate of a deploy goes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from smooth_orchestrator.config import Tier
from smooth_orchestrator.journal import Record
from smooth_orchestrator.rules import Shown
from tests.support.model.scheduling import Failure, Process

__all__ = ["MIGRATIONS", "Database", "Journal", "Loss", "Session", "shown_by"]

MIGRATIONS: Final = 2
"""How many are pending on a database that has work to do."""


@dataclass(slots=True)
class Loss:
    """A connection that is cut once, at a statement.

    Args:
        database: to which.
        statement: by the name of its crash points.
        is_executed: whether the server has done it before.
    """

    database: int
    statement: str
    is_executed: bool
    is_over: bool = False


@dataclass(slots=True, eq=False)
class Session:
    """A transaction: open in a worker's session, or prepared."""

    run: str
    owner: Process
    applied: int
    marks: bool = False


@dataclass(slots=True, eq=False)
class Database:
    """One of the fleet.

    Args:
        number: its place in the plan.
        tier: how it is moved; None where nothing is pending.
        phase: the number of its phase.
        is_server: whether it is on a server, which can end a session.
    """

    number: int
    tier: Tier | None
    phase: int
    is_server: bool
    applied: int = 0
    markers: set[str] = field(default_factory=set)
    unfinished: str | None = None
    is_being_undone: bool = False
    prepared: dict[str, Session] = field(default_factory=dict)
    session: Session | None = None
    holder: Process | None = None
    epoch: int = 0
    loss: Loss | None = None

    @property
    def name(self) -> str:
        """Its name in the journal."""
        return f"database_{self.number}"

    @property
    def is_new(self) -> bool:
        """Whether everything is applied and nothing is left to be settled."""
        return self.applied == MIGRATIONS and not (self.prepared or self.unfinished)

    @property
    def is_old(self) -> bool:
        """Whether it is as it was before the first deploy."""
        return self.applied == 0 and not (self.prepared or self.unfinished or self.markers)

    @property
    def is_held(self) -> bool:
        """Whether somebody is at work on it. A lease expires, but nobody gets past the lock on a file."""
        if self.holder is None or not self.holder.is_alive:
            return False
        return not self.holder.is_frozen or (not self.is_server and self.session is not None)

    def end_sessions(self, run: str) -> None:
        """End a run's session, whose transaction is rolled back."""
        if self.is_server and self.session is not None and self.session.run == run:
            self.session = None

    def execute(self, statement: str, effect: Callable[[], None]) -> None:
        """Execute a statement, unless the connection is cut before that.

        Raises:
            Failure: no answer came; the session is gone.
        """
        loss = self.loss if self.loss and not self.loss.is_over and self.loss.statement == statement else None
        if loss is None or loss.is_executed:
            effect()
        if loss is not None:
            loss.is_over = True
            self.session = None
            raise Failure("connection_lost")

    def commit(self, session: Session, *, ends: bool) -> None:
        """Make a transaction permanent.

        Args:
            session: which.
            ends: whether that ends what was committed before, too.
        """
        self.applied = max(self.applied, session.applied)
        if session.marks:
            self.markers.add(session.run)
        if ends:
            self.unfinished, self.is_being_undone = None, False


@dataclass(slots=True)
class Journal:
    """Records, and who may write them."""

    records: list[Record] = field(default_factory=list)
    owner: Process | None = None


def shown_by(database: Database, run: str) -> Shown:
    """Return what a database shows of a run."""
    if any(gid.startswith(f"smooth:{run}:") for gid in database.prepared):
        return Shown.PREPARED
    if run in database.markers:
        return Shown.DONE
    return Shown.STEPS if database.unfinished == run else Shown.NOTHING
