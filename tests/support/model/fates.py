"""What ends a run: the decision obeyed everywhere, or everything taken back."""

from contextlib import suppress
from typing import Final

from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import Decision
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.run import Stage
from tests.support.model.runs import Commander, Item, Run, held_data
from tests.support.model.scheduling import ALWAYS, Failure, Steps, WorkerLost

__all__ = ["Deciding"]

# How often what was decided is tried again before it is left to the next command.
_TRIES: Final = 3


class Deciding(Commander):
    """A commander that decides and obeys."""

    def decide(self, run: Run, decision: Decision, scope: str) -> Steps[None]:
        """Write the decision."""
        yield from self.append(run, RecordKind.DECISION, decision=str(decision), scope=scope)

    def commit_everywhere(self, run: Run) -> Steps[None]:
        """Commit all that is held; what fails is run forward again, and left in doubt after a few tries."""
        yield from self.scheduler.together(self, [self._commit(run, item) for item in run.in_stage(Stage.HELD)])

    def _commit(self, run: Run, item: Item) -> Steps[None]:
        failure = yield from self._try(item)
        for _number in range(_TRIES):
            if failure is not None:
                failure = yield from self._run_forward(run, item)
        if failure is not None:
            item.stage = Stage.IN_DOUBT
            run.fail(failure)
        else:
            yield from self.note_committed(run, item)

    def _try(self, item: Item) -> Steps[str | None]:
        if item.gid is None:
            return (yield from self.commit_held(item))
        is_gone = yield from self.settle_prepared(item, commits=True)
        item.gid = None
        failure = yield from self.commit_held(item)
        return failure if is_gone else None

    def settle_prepared(self, item: Item, *, commits: bool) -> Steps[bool]:
        """End a prepared transaction, however often that takes, and return whether it was gone."""
        name = "commit_prepared" if commits else "rollback_prepared"
        database, gid = item.database, item.gid or ""

        def settle() -> None:
            session = database.prepared.pop(gid)
            if commits:
                database.commit(session, ends=False)

        while gid in database.prepared:
            try:
                yield from self.passing(
                    name, lambda: database.execute(name, settle) if gid in database.prepared else None
                )
            except Failure:
                continue
            return False
        yield ALWAYS
        self.reach(f"{name}.before")
        return True

    def commit_held(self, item: Item) -> Steps[str | None]:
        """Have a worker commit what it holds, and return why that is not known to have happened."""
        worker = self.worker(item)
        try:
            yield from worker.ask(worker.commit(item.database))
        except Failure as failure:
            return str(failure)
        return None

    def note_committed(self, run: Run, item: Item) -> Steps[None]:
        """Note that a database is new."""
        item.stage = Stage.COMMITTED
        yield from self.note(run, RecordKind.COMMITTED, item, **held_data(item))

    def _run_forward(self, run: Run, item: Item) -> Steps[str | None]:
        item.database.end_sessions(run.run_id)
        self.living(item)
        steps = item.steps
        failure = yield from self.apply(run, item)
        if item.stage is not Stage.HELD:
            return failure
        item.steps = item.steps or steps
        return (yield from self._try(item))

    def take_back(self, run: Run) -> Steps[None]:
        """Take back what the run did, the last phase first."""
        touched = (Stage.HELD, Stage.FAILED, Stage.WORKING, Stage.COMMITTED)
        committed = [item for item in run.in_stage(Stage.COMMITTED) if item.steps]
        together = committed if len(committed) > 1 else []
        for phase in reversed(range(self.settings.phases)):
            items = [item for item in run.in_stage(*touched) if item.database.phase == phase and item not in together]
            yield from self.scheduler.together(self, [self._take_back_one(run, item) for item in items])
        if together:
            yield from self._take_back_together(run, together)

    def _take_back_together(self, run: Run, items: list[Item]) -> Steps[None]:
        failed: list[str] = []
        waiting, lost = items, list[Item]()
        for _attempt in range(2):
            for phase in reversed(range(self.settings.phases)):
                each = [item for item in waiting if item.database.phase == phase]
                yield from self.scheduler.together(self, [self._hold_back(run, item, failed) for item in each])
            lost = []
            each = [item for item in waiting if item.is_undone]
            yield from self.scheduler.together(self, [self._find_lost(item, lost) for item in each])
            waiting = [*lost]
            yield from self.scheduler.together(self, [self._let_go(item) for item in waiting])
        failed += [item.database.name for item in lost]
        if failed:
            yield from self.scheduler.together(self, [self._let_go(item) for item in items if item.is_undone])
        yield from self.scheduler.together(self, [self._end_back(run, item) for item in items])

    def _hold_back(self, run: Run, item: Item, failed: list[str]) -> Steps[None]:
        yield ALWAYS
        if failed:
            return
        for _attempt in range(2):
            try:
                item.is_undone = yield from self.worker(item).ask(
                    self.worker(item).hold_back(item.database, run.run_id)
                )
            except WorkerLost:
                self.living(item)
                continue
            except Failure as failure:
                failed.append(str(failure))
            else:
                if not item.is_undone:
                    yield from self._settle_back(run, item)
            return
        failed.append("worker_lost")

    def _find_lost(self, item: Item, lost: list[Item]) -> Steps[None]:
        try:
            yield from self.worker(item).ask(self.worker(item).prepare(item.database, None))
        except Failure:
            lost.append(item)

    def _let_go(self, item: Item) -> Steps[None]:
        item.is_undone = False
        with suppress(WorkerLost):
            yield from self.worker(item).ask(self.worker(item).roll_back(item.database, lambda _event: None))

    def _end_back(self, run: Run, item: Item) -> Steps[None]:
        yield ALWAYS
        if not item.is_undone:
            if item.stage is Stage.COMMITTED:
                item.stage = Stage.IN_DOUBT
                run.fail("stays with the others")
            return
        item.is_undone = False
        try:
            try:
                yield from self.worker(item).ask(self.worker(item).commit_back(item.database))
            except Failure:
                self.living(item)
                yield from self._reverse(run, item)
        except Failure as failure:
            item.stage = Stage.IN_DOUBT
            run.fail(str(failure))
        else:
            yield from self._settle_back(run, item)

    def _settle_back(self, run: Run, item: Item) -> Steps[None]:
        item.permanent = 0
        item.stage = Stage.ROLLED_BACK
        yield from self.note(run, RecordKind.ROLLED_BACK, item)

    def _take_back_one(self, run: Run, item: Item) -> Steps[None]:
        failed_itself, was_committed = item.stage is Stage.FAILED, item.stage is Stage.COMMITTED
        try:
            if not was_committed:
                yield from self._roll_back(run, item)
            is_unsure = item.is_lost and item.tier is Tier.COMPENSATED
            if item.permanent or (was_committed and item.steps) or is_unsure:
                yield from self._reverse(run, item)
        except Failure as failure:
            item.stage = Stage.IN_DOUBT
            run.fail(str(failure))
            return
        item.stage = Stage.FAILED if failed_itself else Stage.ROLLED_BACK
        yield from self.note(run, RecordKind.ROLLED_BACK, item)

    def _roll_back(self, run: Run, item: Item) -> Steps[None]:
        events: list[str] = []
        try:
            yield from self.heard(run, item, events, self.worker(item).roll_back(item.database, events.append))
        except WorkerLost:
            item.database.end_sessions(run.run_id)
        except Failure:
            if item.tier is Tier.COMPENSATED:
                raise
        if item.gid is not None:
            item.database.end_sessions(run.run_id)
            yield from self.settle_prepared(item, commits=False)
            item.gid = None

    def _reverse(self, run: Run, item: Item) -> Steps[None]:
        for _attempt in range(2):
            events: list[str] = []
            try:
                command = self.worker(item).undo(item.database, run.run_id, events.append)
                yield from self.heard(run, item, events, command)
            except WorkerLost:
                self.living(item)
                continue
            item.permanent = 0
            return
        raise Failure("worker_lost")
