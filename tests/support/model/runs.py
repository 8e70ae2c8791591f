"""One run of a coordinator: how far each database has come, who serves it, and what is written down of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from smooth_migrations.protocol import Before, Received, Step
from smooth_orchestrator.config import Tier
from smooth_orchestrator.journal import Record, RecordKind
from smooth_orchestrator.run import Stage
from smooth_orchestrator.told import Held
from tests.support.model.databases import MIGRATIONS, Database, Journal
from tests.support.model.scheduling import Failure, Process, Scheduler, Steps, WorkerLost
from tests.support.model.workers import Worker

__all__ = ["Commander", "Item", "Run", "Settings", "held_data", "phase_name"]

_STEPS: Final = tuple(Step("demo", f"000{number + 2}") for number in range(MIGRATIONS))
_AT: Final = datetime(2024, 1, 1, tzinfo=UTC)


def phase_name(number: int) -> str:
    """Return a phase's name."""
    return f"phase_{number}"


@dataclass(frozen=True, slots=True)
class Settings:
    """How coordinators work.

    Args:
        databases: all there are.
        phases: how many.
        by_phase: whether each phase is decided by itself.
        fails: whether the gate of the last phase fails.
        workers: how many a coordinator begins with.
        scheduler: lets their tasks go on.
        on_record: called with each record that is written, and the journal.
    """

    databases: Sequence[Database]
    phases: int
    by_phase: bool
    fails: bool
    workers: int
    scheduler: Scheduler
    on_record: Callable[[Record, Journal], None]


@dataclass(slots=True, eq=False)
class Item:
    """A database in one run, as in `smooth_orchestrator.run.TargetRun`."""

    database: Database
    stage: Stage = Stage.UNTOUCHED
    tier: Tier | None = None
    steps: int = 0
    permanent: int = 0
    is_lost: bool = False
    is_prepared: bool = False
    is_undone: bool = False
    gid: str | None = None


@dataclass(slots=True, eq=False)
class Run:
    """One run, as in `smooth_orchestrator.run.Run`."""

    run_id: str
    items: list[Item]
    is_stopping: bool = False
    is_decided: bool = False
    causes: list[str] = field(default_factory=list)

    def fail(self, cause: str) -> None:
        """Note a failure, and let nothing else begin."""
        self.causes.append(cause)
        self.is_stopping = True

    def in_stage(self, *stages: Stage) -> list[Item]:
        """Return those in one of these stages."""
        return [item for item in self.items if item.stage in stages]


class Commander(Process):
    """A process that has workers do what is asked for, and writes down what happens.

    Args:
        settings: see there.
        journal: where it writes.
        strike: see `Process`; its workers have the same.
    """

    def __init__(self, settings: Settings, journal: Journal, strike: tuple[str, int] | None) -> None:
        super().__init__(strike)
        self.journal = journal
        self.settings = settings
        self.scheduler = settings.scheduler
        self._started: list[Worker] = []
        # A target stays with its worker, as `Fleet.assign` gives them out.
        pool = [self._start() for _number in range(settings.workers)]
        self._serving = {each.number: pool[each.number % len(pool)] for each in settings.databases}

    @property
    def workers(self) -> list[Worker]:
        """Those that serve."""
        return [*{id(worker): worker for worker in self._serving.values()}.values()]

    def visits(self) -> list[str]:
        """Return the crash points that this process and its workers have come to, as `commit.after:2`."""
        each = {
            f"{point}:{visit}"
            for process in (self, *self._started)
            for point, reached in process.reached.items()
            for visit in range(1, reached + 1)
        }
        return sorted(each)

    def freeze(self, *, is_frozen: bool) -> None:
        """Stop this process and its workers, or let them go on."""
        for process in (self, *self.workers):
            process.is_frozen = is_frozen

    def apply(self, run: Run, item: Item) -> Steps[str | None]:
        """Have a worker apply what is pending, and return why not; the stage is HELD, FAILED or, stopped, WORKING."""
        stops = (lambda: False) if run.is_decided else (lambda: run.is_stopping)
        events: list[str] = []
        failure: str | None = None
        try:
            item.steps = yield from self.heard(
                run,
                item,
                events,
                self.worker(item).apply(
                    item.database,
                    run.run_id,
                    compensated=item.tier is Tier.COMPENSATED,
                    goes_on=run.is_decided,
                    tell=events.append,
                    stops=stops,
                ),
            )
            item.stage = Stage.HELD
        except Failure as error:
            failure = str(error)
            item.is_lost = item.is_lost or isinstance(error, WorkerLost)
            if failure != "Interrupted" or not run.is_stopping:
                item.stage = Stage.FAILED
                if not run.is_decided:
                    run.fail(failure)
        return failure

    def heard(self, run: Run, item: Item, events: list[str], command: Steps[Any]) -> Steps[Any]:
        """Have a command done, and write down what the worker says meanwhile."""
        answer: Any = None
        failure: Failure | None = None
        try:
            answer = yield from self.worker(item).ask(command)
        except Failure as error:
            failure = error
        for event in events:
            item.permanent += 1 if event == "step" else -min(1, item.permanent)
            yield from self.announce(run, RecordKind.STEP if event == "step" else RecordKind.UNSTEP, item)
        if failure is not None:
            raise failure
        return answer

    def worker(self, item: Item) -> Worker:
        """Return the worker that serves a database."""
        return self._serving[item.database.number]

    def living(self, item: Item) -> Worker:
        """Return it; a new one, for all that it served, where it is lost."""
        lost = self.worker(item)
        if not lost.is_alive:
            worker = self._start()
            self._serving = {number: worker if each is lost else each for number, each in self._serving.items()}
        return self.worker(item)

    def _start(self) -> Worker:
        worker = Worker(self, self.strike, self.settings.databases)
        self._started.append(worker)
        self.scheduler.spawn(worker, worker.main())
        return worker

    def append(self, run: Run, kind: RecordKind, item: Item | None = None, **data: Any) -> Steps[None]:  # noqa: ANN401 - JSON
        """Write a record, while the lease is ours."""

        def write() -> None:
            if self.journal.owner is not self:
                raise Failure("lease_lost")
            name = item.database.name if item else None
            record = Record(len(self.journal.records) + 1, _AT, run.run_id, kind, name, data)
            self.journal.records.append(record)
            self.settings.on_record(record, self.journal)

        yield from self.passing(f"journal.{kind}", write)

    def announce(self, run: Run, kind: RecordKind, item: Item | None = None, **data: Any) -> Steps[bool]:  # noqa: ANN401 - JSON
        """Write a record of what is about to happen, or fail the run; return whether it was written."""
        try:
            yield from self.append(run, kind, item, **data)
        except Failure as failure:
            run.fail(str(failure))
            return False
        return True

    def note(self, run: Run, kind: RecordKind, item: Item | None = None, **data: Any) -> Steps[None]:  # noqa: ANN401 - JSON
        """Write a record of what has happened already; a journal that fails cannot unmake it."""
        try:
            yield from self.append(run, kind, item, **data)
        except Failure:
            return


def held_data(item: Item) -> dict[str, Any]:
    return Held(_STEPS if item.steps else (), Before(), Received()).to_dict()
