"""A worker: it obeys a coordinator, and rolls back what it holds when that is gone."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.support.model.databases import MIGRATIONS, Database, Session
from tests.support.model.scheduling import ALWAYS, Failure, Process, Steps, WorkerLost

__all__ = ["Worker"]

_T = TypeVar("_T")


@dataclass(slots=True)
class _Held:
    """What a worker holds of a database."""

    run: str
    epoch: int
    compensated: bool
    awaits_decision: bool = False
    is_prepared: bool = False


@dataclass(slots=True, eq=False)
class _Call:
    steps: Steps[Any]
    answer: Any = None
    failure: Failure | None = None
    is_done: bool = False


class Worker(Process):
    """Obeys a coordinator, one command after the other, and rolls back what it holds when that is gone.

    Args:
        coordinator: which.
        strike: see `Process`.
        databases: all there are.
    """

    def __init__(self, coordinator: Process, strike: tuple[str, int] | None, databases: Sequence[Database]) -> None:
        super().__init__(strike)
        self.coordinator = coordinator
        self._databases = databases
        self._held: dict[int, _Held] = {}
        self._calls: deque[_Call] = deque()

    def die(self) -> None:
        """End, and with it every session."""
        super().die()
        for database in self._databases:
            if database.session is not None and database.session.owner is self:
                database.session = None

    def main(self) -> Steps[None]:
        """Serve."""
        while True:
            yield lambda: bool(self._calls) or not self.coordinator.is_alive
            if not self._calls:
                break
            call = self._calls.popleft()
            try:
                call.answer = yield from call.steps
            except Failure as failure:
                call.failure = failure
            call.is_done = True
        yield from self._roll_back_all()
        self.die()

    def ask(self, steps: Steps[_T]) -> Steps[_T]:
        """Have a command done, from the coordinator's side, and return its answer.

        Raises:
            WorkerLost: this process has ended before.
            Failure: it answered so.
        """
        call = _Call(steps)
        if self.is_alive:
            self._calls.append(call)
        yield lambda: call.is_done or not self.is_alive
        if not call.is_done:
            raise WorkerLost("worker_lost")
        if call.failure is not None:
            raise call.failure
        answer: _T = call.answer
        return answer

    # --- commands ---------------------------------------------------------------------------------------------------

    def apply(
        self,
        database: Database,
        run: str,
        *,
        compensated: bool,
        goes_on: bool,
        tell: Callable[[str], None],
        stops: Callable[[], bool],
    ) -> Steps[int]:
        """Run what is pending and hold it, or take all of it back.

        Args:
            database: which.
            run: whose.
            compensated: whether each migration is committed by itself.
            goes_on: whether what the run has committed here before stays.
            tell: told of a step, or an unstep, that is permanent.
            stops: whether it is to be interrupted.

        Returns:
            How many migrations that are, with those committed before.

        Raises:
            Failure: it did not succeed.
        """
        yield ALWAYS
        epoch = self._take(database)
        held = _Held(run, epoch, compensated)
        try:
            if database.unfinished is not None and not (
                goes_on and database.unfinished == run and not database.is_being_undone
            ):
                yield from self._take_back(database, epoch, lambda _event: None)
            first = 0 if database.unfinished is not None else database.applied
            yield from self._move(database, held, first, tell, stops)
        except Failure:
            self._drop(database)
            try:
                if compensated or database.unfinished == run:
                    yield from self._take_back(database, epoch, tell)
            finally:
                self._give(database, epoch)
            raise
        self._held[database.number] = held
        return MIGRATIONS - first

    def _move(
        self, database: Database, held: _Held, first: int, tell: Callable[[str], None], stops: Callable[[], bool]
    ) -> Steps[None]:
        yield from self.passing("begin", lambda: self._begin(database, held.run))
        for _number in range(database.applied, MIGRATIONS):
            yield ALWAYS
            if stops() or not self.coordinator.is_alive:
                raise Failure("Interrupted")
            self.reach("apply.before")
            session = self._mine(database)
            session.applied += 1
            self.reach("apply.after")
            if held.compensated:
                yield from self.passing("seal", lambda: self._seal(database, held))
                tell("step")
                yield from self.passing("begin", lambda: self._begin(database, held.run))
        self._mine(database).marks = first < MIGRATIONS

    def _begin(self, database: Database, run: str) -> None:
        database.session = Session(run, self, database.applied)

    def _seal(self, database: Database, held: _Held) -> None:
        self._check(database, held.epoch)
        session = self._mine(database)
        database.commit(session, ends=False)
        database.unfinished, database.session = held.run, None

    def prepare(self, database: Database, gid: str | None) -> Steps[None]:
        """Leave what is held to the decision."""
        held = self._of(database)
        if gid is None:
            yield from self.passing("prepare", lambda: database.execute("prepare", lambda: self._look_alive(database)))
        else:
            yield from self.passing(
                "prepare", lambda: database.execute("prepare", lambda: self._prepare(database, held, gid))
            )
            held.is_prepared = True
        held.awaits_decision = True

    def _look_alive(self, database: Database) -> None:
        self._mine(database)

    def _prepare(self, database: Database, held: _Held, gid: str) -> None:
        self._check(database, held.epoch)
        database.prepared[gid], database.session = self._mine(database), None

    def commit(self, database: Database) -> Steps[None]:
        """Make what is held permanent."""
        held = self._of(database)
        del self._held[database.number]

        def commit() -> None:
            session = self._mine(database)
            if session.marks:
                self._check(database, held.epoch)
            database.commit(session, ends=held.compensated)
            database.session = None

        try:
            if held.is_prepared:
                yield ALWAYS
            else:
                yield from self.passing("commit", lambda: database.execute("commit", commit))
        except Failure:
            self._drop(database)
            raise
        finally:
            self._give(database, held.epoch)

    def roll_back(self, database: Database, tell: Callable[[str], None]) -> Steps[None]:
        """Take back what is held, and what was committed step by step."""
        held = self._held.pop(database.number, None)
        if held is None:
            return
        try:
            yield ALWAYS
            self.reach("rollback.before")
            self._drop(database)
            if held.compensated:
                yield from self._take_back(database, held.epoch, tell)
            self.reach("rollback.after")
        finally:
            self._give(database, held.epoch)

    def undo(self, database: Database, run: str, tell: Callable[[str], None]) -> Steps[None]:
        """Take back committed steps that somebody else has made."""
        yield ALWAYS
        epoch = self._take(database)
        try:
            if run in database.markers:
                yield ALWAYS
                database.unfinished = run
                database.markers.discard(run)
            if database.unfinished == run:
                yield from self._take_back(database, epoch, tell)
        finally:
            self._give(database, epoch)

    def hold_back(self, database: Database, run: str) -> Steps[bool]:
        """Take committed steps back in a transaction that stays open, and return whether there is one."""
        yield ALWAYS
        epoch = self._take(database)
        if run not in database.markers:
            try:
                if database.unfinished == run:
                    yield from self._take_back(database, epoch, lambda _event: None)
            finally:
                self._give(database, epoch)
            return False
        try:
            yield from self.passing("begin", lambda: self._begin(database, run))
            for _number in range(database.applied):
                yield ALWAYS
                self.reach("unapply.before")
                self._mine(database).applied -= 1
                self.reach("unapply.after")
        except Failure:
            self._drop(database)
            self._give(database, epoch)
            raise
        self._held[database.number] = _Held(run, epoch, compensated=False)
        return True

    def commit_back(self, database: Database) -> Steps[None]:
        """Make permanent what was taken back."""
        held = self._of(database)
        del self._held[database.number]

        def commit() -> None:
            session = self._mine(database)
            self._check(database, held.epoch)
            database.applied, database.session = session.applied, None
            database.markers.discard(held.run)

        try:
            yield from self.passing("undo_commit", commit)
        except Failure:
            self._drop(database)
            raise
        finally:
            self._give(database, held.epoch)

    def look(self, database: Database, run: str | None, *, fences: bool) -> Steps[None]:
        """End a run's sessions, and raise the lease's epoch where asked for; what is then shown counts."""
        yield ALWAYS
        if run is not None:
            database.end_sessions(run)
        if fences and not database.is_held and not database.prepared:
            database.epoch += 1
            database.holder = None

    # --- between them -----------------------------------------------------------------------------------------------

    def _roll_back_all(self) -> Steps[None]:
        for number, held in [*self._held.items()]:
            database = self._databases[number]
            try:
                if held.awaits_decision:
                    yield ALWAYS
                    del self._held[number]
                    self._drop(database)
                    self._give(database, held.epoch)
                else:
                    yield from self.roll_back(database, lambda _event: None)
            except Failure:
                continue

    def _take_back(self, database: Database, epoch: int, tell: Callable[[str], None]) -> Steps[None]:
        if database.unfinished is None:
            return
        yield ALWAYS
        self._check(database, epoch)
        database.is_being_undone = True
        yield from self._reverse(database, epoch, tell)
        yield ALWAYS
        self._check(database, epoch)
        database.unfinished, database.is_being_undone = None, False

    def _reverse(self, database: Database, epoch: int, tell: Callable[[str], None]) -> Steps[None]:
        while database.applied:
            yield ALWAYS
            self.reach("unapply.before")
            self._check(database, epoch)
            database.applied -= 1
            self.reach("unapply.after")
            tell("unstep")

    def _of(self, database: Database) -> _Held:
        held = self._held.get(database.number)
        if held is None:
            raise Failure("nothing_held")
        return held

    def _mine(self, database: Database) -> Session:
        if database.session is None or database.session.owner is not self:
            raise Failure("connection_lost")
        return database.session

    def _drop(self, database: Database) -> None:
        if database.session is not None and database.session.owner is self:
            database.session = None

    def _take(self, database: Database) -> int:
        if database.is_held or database.prepared:
            raise Failure("LeaseHeld")
        database.holder = self
        database.epoch += 1
        return database.epoch

    def _give(self, database: Database, epoch: int) -> None:
        if database.holder is self and database.epoch == epoch:
            database.holder = None

    def _check(self, database: Database, epoch: int) -> None:
        if database.epoch != epoch:
            raise Failure("lease_lost")
