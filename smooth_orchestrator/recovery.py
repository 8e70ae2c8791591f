"""Settle what interrupted runs have left, by their journal's decisions and by what their databases show."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import anyio

from smooth_migrations.protocol import Before, ErrorInfo, Failed, Look, Standing, Step
from smooth_orchestrator.config import CommitUnit, OnFailure, Tier
from smooth_orchestrator.decision import commit_everywhere, decide
from smooth_orchestrator.errors import Locked, WorkerError
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Journal, Record, RecordKind, RunSummary
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Phase, Plan
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.rules import Action, Shown, action, verdict
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.saga import take_back
from smooth_orchestrator.silence import call_unless_silent

__all__ = ["Settled", "settle_earlier"]

_LOOK_S: Final = 30.0
_PAUSE_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Settled:
    """An interrupted run after it was settled, or as far as it could be.

    Args:
        run: with a stage for each database.
        summary: as the journal knew it.
        outcome: `COMMITTED`, `ROLLED_BACK` or `NEEDS_OPERATOR`.
    """

    run: Run
    summary: RunSummary
    outcome: RunOutcome


@dataclass(slots=True)
class _Told:
    """What a run's records say."""

    tiers: dict[str, Tier] = field(default_factory=dict)
    held: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    decisions: list[tuple[str, Decision]] = field(default_factory=list)

    @classmethod
    def of(cls, records: Iterable[Record]) -> "_Told":
        told = cls()
        for record in records:
            match record.kind:
                case RecordKind.RUN_STARTED:
                    told = cls()
                case RecordKind.INTENT if record.database:
                    told.tiers[record.database] = Tier(record.data["tier"])
                case RecordKind.HELD if record.database:
                    told.held[record.database] = record.data
                case RecordKind.DECISION:
                    told.decisions.append((record.data["scope"], Decision(record.data["decision"])))
        return told

    def decided(self, phase: Phase) -> Decision | None:
        """Return the last decision about a phase."""
        return next((made for scope, made in reversed(self.decisions) if scope in {phase.name, "deploy"}), None)


async def settle_earlier(plan: Plan, journal: Journal, fleet: Fleet) -> tuple[Settled, ...]:
    """Settle every run of the deploy that has not ended, or that needed an operator, oldest first. Safe to repeat.

    The deploy's lease must be held: then none of them is at work any more.

    Args:
        plan: of the deploy, as it is now.
        journal: where the runs are written down.
        fleet: its workers.

    Raises:
        Locked: somebody is at work on one of their databases.
        JournalError: the journal cannot be asked, or takes no decision.
    """
    left: list[RunSummary] = []
    for summary in await journal.runs(plan.name):
        if summary.finished_at and summary.outcome != RunOutcome.NEEDS_OPERATOR:
            break
        left.append(summary)
    return tuple([await _settle(plan, journal, fleet, summary) for summary in reversed(left)])


async def _settle(plan: Plan, journal: Journal, fleet: Fleet, summary: RunSummary) -> Settled:
    started_s = time.monotonic()
    run = Run(plan, summary.run_id, journal)
    told = _Told.of(await journal.records(run.run_id))
    items = [item for item in run.targets if item.name in told.tiers]
    names = [item.name for item in items]
    get_logger().warning(EventName.RECOVER_STARTED, databases=names)
    for gone in sorted(told.tiers.keys() - {*names}):
        run.fail(ErrorInfo("not_in_plan", f"{gone} is not in this plan", hint="recover with the plan as it was"))
    shown = await _look(run, fleet, items)
    decision: Decision | None = None
    if run.cause is None:
        decision = await _obey(run, fleet, told, shown)
    if run.cause is not None or run.in_stage(Stage.IN_DOUBT):
        outcome = RunOutcome.NEEDS_OPERATOR
    else:
        outcome = RunOutcome.COMMITTED if decision is Decision.COMMIT else RunOutcome.ROLLED_BACK
    get_logger().warning(
        EventName.RECOVER_SETTLED,
        outcome=str(outcome),
        duration_ms=round((time.monotonic() - started_s) * 1000, 1),
        databases=names,
        error=run.cause,
        **({"decision": str(decision)} if decision else {}),
    )
    return Settled(run, summary, outcome)


async def _look(run: Run, fleet: Fleet, items: Sequence[TargetRun]) -> dict[str, Shown]:
    """Return what each database shows; one that stays away for longer than `settle_timeout` fails the run."""
    shown: dict[str, Shown] = {}

    async def look(item: TargetRun) -> None:
        deadline_s = anyio.current_time() + run.plan.settle_timeout_ms / 1000
        while True:
            answer = await _ask(run, fleet, item)
            if isinstance(answer, Standing) or anyio.current_time() > deadline_s:
                break
            await anyio.sleep(_PAUSE_S)
        if isinstance(answer, ErrorInfo):
            item.stage, item.error = Stage.IN_DOUBT, answer
            run.fail(answer, item.name)
        elif answer.holder:
            raise Locked(
                f"another run is at work on {item.name}: {answer.holder}", hint="wait for it, or end that process"
            )
        else:
            shown[item.name] = _shown(run, item, answer)

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(look, item)
    return shown


async def _ask(run: Run, fleet: Fleet, item: TargetRun) -> Standing | ErrorInfo:
    try:
        worker = await fleet.living(run.plan, item.target)
        command = Look(id=worker.next_id(), database=item.name, alias=item.target.alias, runs=(run.run_id,))
        answer = await call_unless_silent(worker, command, _LOOK_S)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    if isinstance(answer, Standing):
        return answer
    return answer.error if isinstance(answer, Failed) else ErrorInfo("unexpected", "a worker gave no answer")


def _shown(run: Run, item: TargetRun, standing: Standing) -> Shown:
    item.gid = next((gid for gid in standing.gids if gid.startswith(f"smooth:{run.run_id}:")), None)
    if item.gid is not None:
        return Shown.PREPARED
    if run.run_id in standing.markers:
        return Shown.DONE
    return Shown.STEPS if standing.unfinished == run.run_id else Shown.NOTHING


async def _obey(run: Run, fleet: Fleet, told: _Told, shown: Mapping[str, Shown]) -> Decision:
    """Bring every database to where the decision wants it, and return the decision."""
    by_phase = run.plan.commit is CommitUnit.PHASE
    halts = run.plan.on_failure is OnFailure.HALT
    groups = [(phase,) for phase in run.plan.phases] if by_phase else [run.plan.phases]
    decisions: dict[str, Decision] = {}
    for group in groups:
        seen = [shown[item.name] for item in run.targets if item.phase in group and item.name in shown]
        # Every run here is one that the journal knows, so that something is always decided.
        made = verdict(told.decided(group[-1]), seen, is_known=True) or Decision.ABORT
        decisions |= {phase.name: made for phase in group}
    whole = Decision.COMMIT if all(made is Decision.COMMIT for made in decisions.values()) else Decision.ABORT
    if whole is Decision.ABORT and not halts:
        decisions = dict.fromkeys(decisions, Decision.ABORT)
    if told.decisions[-1:] != [("deploy", whole)]:
        await decide(run, whole, scope="deploy")
    run.decided = True
    for item in run.targets:
        if item.name in shown:
            _stand(item, told, shown[item.name], action(decisions[item.phase.name], shown[item.name]))
    await commit_everywhere(run, fleet, run.in_stage(Stage.HELD))
    if whole is Decision.ABORT:
        await take_back(run, fleet, committed=not halts)
    return whole


def _stand(item: TargetRun, told: _Told, shown: Shown, wanted: Action) -> None:
    """Note how far a database has come, so that what a run does next settles it."""
    held = told.held.get(item.name, {})
    item.steps = [Step(**step) for step in held.get("steps", ())]
    before = held.get("before")
    if before:
        item.before = Before(**{**before, **{key: tuple(before[key]) for key in ("extensions", "schemas")}})
    item.tier = Tier.COMPENSATED if shown is Shown.STEPS else told.tiers[item.name]
    match wanted:
        case Action.RUN_FORWARD | Action.COMMIT:
            item.stage = Stage.HELD
        case Action.LEAVE | Action.REVERSE if shown is Shown.DONE:
            item.stage = Stage.COMMITTED
        case Action.REVERSE | Action.ROLL_BACK:
            item.stage, item.is_lost = Stage.WORKING, True
            item.steps = []
        case _:
            item.steps = []
