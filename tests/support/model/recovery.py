"""The recovery of a coordinator: what settles a database is asked of the product's own rules."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import Decision
from smooth_orchestrator.journal import RecordKind
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.rules import Action, Shown, action, verdict
from smooth_orchestrator.run import Stage
from smooth_orchestrator.told import Told
from tests.support.model.databases import Journal, shown_by
from tests.support.model.fates import Deciding
from tests.support.model.runs import Item, Run, Settings, phase_name
from tests.support.model.scheduling import ALWAYS, Failure, Steps, WorkerLost

__all__ = ["Recovering"]

# How many workers may be lost while a database is looked at.
_TRIES: Final = 3


class Recovering(Deciding):
    """A coordinator that settles what others have left.

    Args:
        settings: see there.
        journal: where it writes.
        strike: see `Process`; its workers have the same.
        forced: an operator's decision.

    Attributes:
        outcome: of the run, or of the last one that it settled; None while there is none.
        failure: what refused it.
    """

    def __init__(
        self, settings: Settings, journal: Journal, strike: tuple[str, int] | None, forced: Decision | None
    ) -> None:
        super().__init__(settings, journal, strike)
        self.outcome: RunOutcome | None = None
        self.failure: str | None = None
        self._forced = forced

    def settle_earlier(self) -> Steps[None]:
        """Settle the runs that the journal has not ended, and those that are found in the databases.

        Raises:
            Failure: somebody is at work, or the operator says something else than what was decided.
        """
        known = self._unsettled()
        for run_id in reversed(known):
            yield from self._settle(run_id, is_new=False)
        left: set[str] = set()
        for database in self.settings.databases:
            is_held = yield from self.look(Item(database), None, fences=False)
            here = {gid.split(":")[1] for gid in database.prepared}
            here |= {database.unfinished} if database.unfinished else set()
            if here - {*known} and is_held:
                raise Failure("Locked")
            left |= here - {*known}
        for run_id in sorted(left):
            begun = [each for each in self.journal.records if each.kind is RecordKind.RUN_STARTED]
            adopted = {each.run_id: bool(each.data.get("adopted")) for each in begun}
            yield from self._settle(run_id, is_new=adopted.get(run_id, True))

    def _unsettled(self) -> list[str]:
        """Return the runs that have not ended, or that needed an operator, newest first."""
        ends: dict[str, str | None] = {}
        for record in self.journal.records:
            if record.kind is RecordKind.RUN_STARTED:
                ends.pop(record.run_id, None)
                ends[record.run_id] = None
            elif record.kind is RecordKind.RUN_FINISHED and record.run_id in ends:
                ends[record.run_id] = record.data["outcome"]
        open_ones: list[str] = []
        for run_id, end in reversed(ends.items()):
            if end not in {None, RunOutcome.NEEDS_OPERATOR}:
                break
            open_ones.append(run_id)
        return open_ones

    def _settle(self, run_id: str, *, is_new: bool) -> Steps[None]:
        yield ALWAYS
        run = Run(run_id, [Item(each) for each in self.settings.databases])
        records = [] if is_new else [record for record in self.journal.records if record.run_id == run_id]
        told = Told.of(records)
        items = [item for item in run.items if is_new or told.may_concern(item.database.name)]
        shown = yield from self._look_everywhere(run, told, items)
        decisions = self._verdicts(told, shown)
        if decisions is None and self._forced is None:
            self.failure, self.outcome = "journal_lost", RunOutcome.NEEDS_OPERATOR
            return
        if decisions is None:
            decisions = dict.fromkeys(range(self.settings.phases), self._forced or Decision.ABORT)
        elif self._forced is not None and {*decisions.values()} != {self._forced}:
            raise Failure("Refused")
        if is_new:
            names = [item.database.name for item in run.items]
            yield from self.append(run, RecordKind.RUN_STARTED, targets=names, adopted=True)
        whole = yield from self._obey(run, told, shown, decisions)
        if run.is_stopping or run.in_stage(Stage.IN_DOUBT):
            self.outcome = RunOutcome.NEEDS_OPERATOR
        else:
            self.outcome = RunOutcome.COMMITTED if whole is Decision.COMMIT else RunOutcome.ROLLED_BACK
        yield from self.note(run, RecordKind.RUN_FINISHED, outcome=str(self.outcome))

    def _look_everywhere(self, run: Run, told: Told, items: Sequence[Item]) -> Steps[dict[int, Shown]]:
        shown: dict[int, Shown] = {}

        def look(item: Item) -> Steps[None]:
            fences = told.tiers.get(item.database.name) is Tier.HELD_OPEN
            if (yield from self.look(item, run.run_id, fences=fences)):
                raise Failure("Locked")
            prefix = f"smooth:{run.run_id}:"
            item.gid = next((gid for gid in item.database.prepared if gid.startswith(prefix)), None)
            shown[item.database.number] = shown_by(item.database, run.run_id)

        yield from self.scheduler.together(self, [look(item) for item in items])
        return shown

    def look(self, item: Item, run_id: str | None, *, fences: bool) -> Steps[bool]:
        """Look at a database, and return whether somebody is at work there."""
        for _attempt in range(_TRIES):
            worker = self.living(item)
            try:
                yield from worker.ask(worker.look(item.database, run_id, fences=fences))
            except WorkerLost:
                continue
            return item.database.is_held and item.database.holder not in self.workers
        raise Failure("worker_lost")

    def _verdicts(self, told: Told, shown: Mapping[int, Shown]) -> dict[int, Decision] | None:
        phases = range(self.settings.phases)
        groups: list[Collection[int]] = (
            [[phase] for phase in phases] if self.settings.by_phase and told.is_known else [phases]
        )
        decisions: dict[int, Decision] = {}
        for group in groups:
            seen = [
                shown[each.number] for each in self.settings.databases if each.phase in group and each.number in shown
            ]
            names = {"deploy", phase_name(max(group))}
            decided = next((made for scope, made in reversed(told.decisions) if scope in names), None)
            made = verdict(decided, seen, is_known=told.is_known)
            if made is None:
                return None
            decisions |= dict.fromkeys(group, made)
        if Decision.ABORT not in decisions.values():
            return decisions
        lost = any(
            action(Decision.ABORT, shown[each.number], is_told=each.name in told.held) is Action.ASK
            for each in self.settings.databases
            if each.number in shown
        )
        if lost and ("deploy", Decision.ABORT) not in told.decisions:
            return None
        return dict.fromkeys(decisions, Decision.ABORT)

    def _obey(
        self, run: Run, told: Told, shown: Mapping[int, Shown], decisions: Mapping[int, Decision]
    ) -> Steps[Decision]:
        whole = Decision.ABORT if Decision.ABORT in decisions.values() else Decision.COMMIT
        if told.decisions[-1:] != [("deploy", whole)]:
            yield from self.decide(run, whole, "deploy")
        run.is_decided = True
        for item in run.items:
            if item.database.number in shown:
                each = shown[item.database.number]
                # Every plan is the same here, and so is every project.
                belongs = told.is_known or Shown.DONE in shown.values()
                if each is Shown.NOTHING and whole is Decision.COMMIT and not belongs and self._forced is None:
                    run.fail("no_trace")
                _stand(item, told, each, action(decisions[item.database.phase], each, belongs=belongs))
        yield from self.commit_everywhere(run)
        if whole is Decision.ABORT:
            yield from self.take_back(run)
        return whole


def _stand(item: Item, told: Told, shown: Shown, wanted: Action) -> None:
    if (held := told.held.get(item.database.name)) is not None:
        item.steps = len(held.steps)
    item.tier = Tier.COMPENSATED if shown is Shown.STEPS else told.tiers.get(item.database.name, Tier.TWO_PHASE)
    match wanted:
        case Action.RUN_FORWARD | Action.COMMIT:
            item.stage = Stage.HELD
        case Action.LEAVE | Action.REVERSE if shown is Shown.DONE:
            item.stage = Stage.COMMITTED
        case Action.REVERSE | Action.ROLL_BACK:
            item.stage, item.is_lost, item.steps = Stage.WORKING, True, 0
        case _:
            item.steps = 0
