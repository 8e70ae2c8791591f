"""A coordinator: it goes through a deploy, or its recovery, in the order of the product."""

from collections.abc import Callable
from itertools import count

from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import Decision
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.run import Stage
from tests.support.model.databases import Database, Journal
from tests.support.model.recovery import Recovering
from tests.support.model.runs import Item, Run, Settings, held_data, phase_name
from tests.support.model.scheduling import ALWAYS, Failure, Process, Steps
from tests.support.model.workers import Worker

__all__ = ["Coordinator"]


class Coordinator(Recovering):
    """One command; see `Recovering`.

    Attributes:
        deciding: the database whose commit is the decision, from that commit on.
    """

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        strike: tuple[str, int] | None = None,
        forced: Decision | None = None,
    ) -> None:
        super().__init__(settings, journal, strike, forced)
        self.deciding: Database | None = None
        self._epochs = count(1)

    def deploy(self, run_id: str) -> Steps[None]:
        """Move everything forwards, or leave it as it was."""
        yield from self._guarded(lambda: self._deploy(run_id))

    def recover(self) -> Steps[None]:
        """Settle what was left."""
        yield from self._guarded(self.settle_earlier)

    def _guarded(self, command: Callable[[], Steps[None]]) -> Steps[None]:
        yield ALWAYS
        if self.journal.owner is not None and self.journal.owner.is_running:
            self.failure, self.outcome = "Locked", RunOutcome.LOCKED
        else:
            self.journal.owner = self
            try:
                yield from command()
            except Failure as failure:
                self.failure = str(failure)
                self.outcome = RunOutcome.LOCKED if self.failure == "Locked" else RunOutcome.REFUSED
            if self.journal.owner is self:
                self.journal.owner = None
        self.die()

    def _deploy(self, run_id: str) -> Steps[None]:
        yield from self.settle_earlier()
        if self.outcome is RunOutcome.NEEDS_OPERATOR:
            return
        run = Run(run_id, [Item(each) for each in self.settings.databases])
        yield from self.append(run, RecordKind.RUN_STARTED, targets=[item.database.name for item in run.items])
        for item in run.items:
            item.tier = item.database.tier
        if all(item.database.is_new for item in run.items):
            self.outcome = RunOutcome.NOTHING_TO_DO
        else:
            yield from self._forward(run)
            self.outcome = yield from self._end(run)
        yield from self.note(run, RecordKind.RUN_FINISHED, outcome=str(self.outcome))

    def _forward(self, run: Run) -> Steps[None]:
        for phase in range(self.settings.phases):
            if run.is_stopping:
                return
            yield from self._phase(run, phase)
            if self.settings.by_phase and not run.is_stopping:
                yield from self._decide_and_commit(run, phase_name(phase))
                run.is_decided = bool(run.in_stage(Stage.IN_DOUBT))
        if not self.settings.by_phase and not run.is_stopping:
            yield from self._decide_and_commit(run, "deploy")

    def _phase(self, run: Run, phase: int) -> Steps[None]:
        yield from self.announce(run, RecordKind.PHASE_STARTED, phase=phase_name(phase))
        items = [item for item in run.items if item.database.phase == phase and item.tier and not item.database.is_new]
        watched = Process(None)
        for worker in self.workers:
            self.scheduler.spawn(watched, self._watch(run, worker))
        for first in (True, False):
            each = [item for item in items if (item.tier is Tier.COMPENSATED) is first]
            yield from self.scheduler.together(self, [self._move(run, item) for item in each])
        if self.settings.fails and phase == self.settings.phases - 1:
            yield ALWAYS
            run.fail("gate")
        watched.die()

    def _watch(self, run: Run, worker: Worker) -> Steps[None]:
        yield lambda: not worker.is_alive
        served = [item for item in run.items if self._serving[item.database.number] is worker]
        if not any(item.stage is Stage.WORKING for item in served):
            for item in served:
                if item.stage is Stage.HELD and not item.is_prepared:
                    self._lose(run, item, "worker_lost")

    def _lose(self, run: Run, item: Item, cause: str) -> None:
        item.stage = Stage.FAILED
        run.fail(cause)

    def _move(self, run: Run, item: Item) -> Steps[None]:
        yield ALWAYS
        if run.is_stopping:
            return
        if not (yield from self.announce(run, RecordKind.INTENT, item, tier=str(item.tier))):
            return
        item.stage = Stage.WORKING
        yield from self.apply(run, item)
        if item.stage is Stage.HELD:
            yield from self.announce(run, RecordKind.HELD, item, **held_data(item))

    def _decide_and_commit(self, run: Run, scope: str) -> Steps[None]:
        held = [item for item in run.in_stage(Stage.HELD) if not item.is_prepared]
        yield from self.scheduler.together(self, [self._prepare(run, item) for item in held])
        if run.is_stopping:
            return
        run.is_decided = True
        last = [item for item in run.in_stage(Stage.HELD) if item.tier is Tier.HELD_OPEN and item.steps]
        if len(last) != 1:
            try:
                yield from self.decide(run, Decision.COMMIT, scope)
            except Failure as failure:
                run.is_decided = False
                run.fail(str(failure))
                return
        elif (refusal := (yield from self._commit_last_resource(run, last[0]))) is not None:
            run.is_decided = False
            run.fail(refusal)
            return
        else:
            yield from self.note(run, RecordKind.DECISION, decision=str(Decision.COMMIT), scope=scope)
        yield from self.commit_everywhere(run)

    def _prepare(self, run: Run, item: Item) -> Steps[None]:
        if item.tier is Tier.TWO_PHASE:
            item.gid = f"smooth:{run.run_id}:{item.database.name}:{next(self._epochs)}"
            if not (yield from self.announce(run, RecordKind.PREPARING, item, gid=item.gid)):
                item.gid = None
                return
        try:
            yield from self.worker(item).ask(self.worker(item).prepare(item.database, item.gid))
        except Failure as failure:
            item.is_lost = True
            self._lose(run, item, str(failure))
        else:
            item.is_prepared = item.gid is not None

    def _commit_last_resource(self, run: Run, item: Item) -> Steps[str | None]:
        yield ALWAYS
        self.reach("decide.before")
        self.deciding = item.database
        failure = yield from self.commit_held(item)
        self.reach("decide.after")
        if failure is not None:
            is_held = yield from self.look(item, run.run_id, fences=True)
            if is_held or run.run_id not in item.database.markers:
                item.stage = Stage.IN_DOUBT if is_held else Stage.FAILED
                return failure
        yield from self.note_committed(run, item)
        return None

    def _end(self, run: Run) -> Steps[RunOutcome]:
        if not run.is_stopping:
            return RunOutcome.COMMITTED
        if run.in_stage(Stage.IN_DOUBT):
            return RunOutcome.NEEDS_OPERATOR
        try:
            yield from self.decide(run, Decision.ABORT, "deploy")
        except Failure as failure:
            run.fail(str(failure))
        yield from self.take_back(run)
        if "lease_lost" in run.causes:
            return RunOutcome.LOCKED
        return RunOutcome.NEEDS_OPERATOR if run.in_stage(Stage.IN_DOUBT, Stage.COMMITTED) else RunOutcome.ROLLED_BACK
