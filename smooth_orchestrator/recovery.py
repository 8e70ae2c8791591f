"""Settle what interrupted runs have left, by their journal's decisions and by what their databases show."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, takewhile
from typing import Final

import anyio

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_orchestrator.config import CommitUnit, OnFailure, Tier
from smooth_orchestrator.decision import commit_everywhere, decide
from smooth_orchestrator.errors import Locked, Refused
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Journal, RecordKind, RunSummary
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.prepared import run_of
from smooth_orchestrator.report import UNDECIDED, RunError, RunOutcome
from smooth_orchestrator.rules import Action, Shown, action, verdict
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.saga import take_back
from smooth_orchestrator.same_files import moved_by_this_plan, require_files
from smooth_orchestrator.standing import ask_standing
from smooth_orchestrator.told import Told
from smooth_orchestrator.whose import another_database, heard_of

__all__ = ["Said", "Settled", "is_unsettled", "settle_earlier", "unsettled"]

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


@dataclass(frozen=True, slots=True)
class Said:
    """What an operator says of interrupted runs.

    Args:
        decision: about those of which nobody else can tell.
        discards: whether rollbacks may lose rows and values that were written since.
        compares: whether the schema of what is taken back is compared with what it was.
    """

    decision: Decision | None = None
    discards: bool = False
    compares: bool = True


async def settle_earlier(
    plan: Plan,
    journal: Journal,
    fleet: Fleet,
    *,
    begins: Callable[[], None],
    said: Said,
) -> tuple[Settled, ...]:
    """Settle every run of the deploy that has not ended, or that needed an operator, oldest first. Safe to repeat.

    The deploy's lease must be held: then none of them is at work any more. So are runs of which their databases tell:
    those that the journal does not know, and those that have ended, where a server has done late what it was asked for.

    Args:
        plan: of the deploy, as it is now.
        journal: where the runs are written down.
        fleet: its workers.
        begins: called when there is a run to be settled, before anything is done about it.
        said: by an operator.

    Raises:
        Locked: somebody is at work on one of their databases.
        Refused: the operator's decision is not the one that was made.
        JournalError: the journal cannot be asked, or takes no decision.
    """
    left = await unsettled(plan, journal)
    for summary in left:
        # A journal that is damaged decides nothing, about none of them.
        await heard_of(plan, journal, summary.run_id)
    if left:
        begins()
    settled = [await _settle(plan, journal, fleet, summary, said=said) for summary in reversed(left)]
    known = {each.run.run_id for each in settled if each.outcome is RunOutcome.NEEDS_OPERATOR}
    for run_id, seen in sorted((await _runs_left(plan, journal, fleet, known)).items()):
        begins()
        _told, found = await heard_of(plan, journal, run_id, {*chain(*seen.values())})
        summary = found or RunSummary(run_id, plan.name, "deploy", plan.digest, datetime.now(UTC))
        settled.append(await _settle(plan, journal, fleet, summary, is_known=found is not None, seen=seen, said=said))
    return tuple(settled)


def is_unsettled(summary: RunSummary) -> bool:
    """Return whether a run has not ended, or has needed an operator since. Pure."""
    return summary.finished_at is None or summary.outcome == RunOutcome.NEEDS_OPERATOR


async def unsettled(plan: Plan, journal: Journal) -> tuple[RunSummary, ...]:
    """Return the deploy's runs that have not ended, or that needed an operator, newest first. Reads only.

    Raises:
        JournalError: the journal cannot be asked.
    """
    return tuple(takewhile(is_unsettled, await journal.runs(plan.name)))


async def _runs_left(
    plan: Plan, journal: Journal, fleet: Fleet, known: Collection[str]
) -> dict[str, dict[str, set[str]]]:
    """Return the other runs that have left something undecided in databases that can be reached: by them, what gids.

    Raises:
        Locked: one of them is at work, by another plan or another journal.
    """
    run = Run(plan, "", journal)
    found: dict[str, dict[str, set[str]]] = {}

    async def look(item: TargetRun) -> None:
        answer = await ask_standing(run, fleet, item)
        if not isinstance(answer, Standing):
            return
        left = {run_id for gid in answer.gids if (run_id := run_of(gid)) is not None}
        # A run's id holds no colon, and that of a call which belongs to no run does.
        if answer.unfinished and ":" not in answer.unfinished:
            left.add(answer.unfinished)
        for run_id in left.difference(known):
            gids = {gid for gid in answer.gids if run_of(gid) == run_id}
            found.setdefault(run_id, {})[item.name] = gids
        if left.difference(known) and answer.holder:
            raise _locked(item, answer.holder)

    async with anyio.create_task_group() as group:
        for item in run.targets:
            group.start_soon(look, item)
    return found


async def _settle(
    plan: Plan,
    journal: Journal,
    fleet: Fleet,
    summary: RunSummary,
    *,
    is_known: bool = True,
    seen: Mapping[str, Collection[str]] | None = None,
    said: Said,
) -> Settled:
    """Settle one run.

    Args:
        plan: of the deploy, as it is now.
        journal: where the run is written down.
        fleet: its workers.
        summary: the run.
        is_known: whether the journal holds it.
        seen: databases that are known to hold something of it, whether or not the journal tells of them, and what gids.
        said: by an operator.
    """
    started_s = time.monotonic()
    seen = seen or {}
    told = (await heard_of(plan, journal, summary.run_id, {*chain(*seen.values())}))[0] if is_known else Told()
    if said.discards:
        told.back = {name: replace(back, discards=True) for name, back in told.back.items()}
    run = Run(told.plan_of(plan), summary.run_id, journal)
    run.takes_back, run.finalises, run.compares = told.takes_back, told.finalises, said.compares
    items = [item for item in run.targets if told.may_concern(item.name) or item.name in seen or not is_known]
    names = [item.name for item in items]
    get_logger().warning(EventName.RECOVER_STARTED, databases=names)
    for gone in sorted(told.tiers.keys() - {*names}):
        _give_up(run, gone, said)
    open_ones = {name for name, tier in told.tiers.items() if tier is Tier.HELD_OPEN}
    shown = await _look(run, fleet, told, items, fenced=open_ones)
    # What was seen counts if nobody else could have begun to act by then; whoever does so later has another epoch.
    await journal.renew()
    decisions = _verdicts(run, told, shown, is_known=is_known)
    decision: Decision | None = None
    # What is decided is done wherever that can be; the others are named, and wait.
    if decisions is None and said.decision is None:
        if run.cause is None:
            run.fail(_undecided(run, shown))
        for item in run.targets:
            if shown.get(item.name) in {Shown.PREPARED, Shown.STEPS}:
                item.stage = Stage.IN_DOUBT
    else:
        decision = await _obey(run, fleet, told, shown, _forced(run, decisions, said.decision))
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


def _give_up(run: Run, name: str, said: Said) -> None:
    """Tell of a database of the run that is not in the plan; it fails the run unless an operator says how that ends."""
    error = ErrorInfo(
        "not_in_plan",
        f"{name} is not in this plan",
        hint="recover with the plan as it was; where it is gone for good, with --abort or --commit, as was decided",
    )
    if said.decision is None:
        run.fail(error)
    else:
        run.further.append(RunError.of(error))


def _undecided(run: Run, shown: Mapping[str, Shown]) -> ErrorInfo:
    prepared, stepped = (
        ", ".join(sorted(name for name, each in shown.items() if each is wanted))
        for wanted in (Shown.PREPARED, Shown.STEPS)
    )
    left = [f"transactions stand prepared on {prepared}"] if prepared else []
    left += [f"committed steps await a decision on {stepped}"] if stepped else []
    return ErrorInfo(
        UNDECIDED,
        f"the journal does not know the run {run.run_id}, whose {', and whose '.join(left)}",
        hint="smooth-orchestrate recover PLAN --commit makes these databases new, --abort leaves them as they were",
    )


def _forced(run: Run, decisions: dict[str, Decision] | None, forced: Decision | None) -> dict[str, Decision]:
    """Return what is to be obeyed: what was decided, else what the operator says.

    Raises:
        Refused: the operator says something else than what was decided.
    """
    made = decisions or dict.fromkeys([phase.name for phase in run.plan.phases], forced or Decision.ABORT)
    if forced is not None and {*made.values()} != {forced}:
        decided = ", ".join(sorted({str(decision) for decision in made.values()}))
        raise Refused(
            f"the run {run.run_id} is to be settled by {decided}, as was decided", hint="leave --commit and --abort out"
        )
    return made


async def _look(
    run: Run, fleet: Fleet, told: Told, items: Sequence[TargetRun], *, fenced: Collection[str]
) -> dict[str, Shown]:
    """Return what each database shows; one that stays away for longer than `settle_timeout` fails the run.

    So does one that is another database than the run's of that name, and is left alone. Of these, `fenced`, one alone
    may have decided by its commit.
    """
    shown: dict[str, Shown] = {}

    async def look(item: TargetRun) -> None:
        deadline_s = anyio.current_time() + run.plan.settle_timeout_ms / 1000
        while True:
            answer = await ask_standing(run, fleet, item, fences=item.name in fenced)
            if isinstance(answer, Standing) or anyio.current_time() > deadline_s:
                break
            await anyio.sleep(_PAUSE_S)
        if isinstance(answer, ErrorInfo):
            item.stage, item.error = Stage.IN_DOUBT, answer
            run.fail(answer, item.name)
            return
        each = _shown(run, item, told, answer)
        if each is Shown.NOTHING and (failure := another_database(run, item, told, answer)) is not None:
            run.fail(failure, item.name)
        elif answer.holder:
            raise _locked(item, answer.holder)
        else:
            shown[item.name] = each

    async with anyio.create_task_group() as group:
        for item in items:
            group.start_soon(look, item)
    return shown


def _locked(item: TargetRun, holder: str) -> Locked:
    return Locked(f"another run is at work on {item.name}: {holder}", hint="wait for it, or end that process")


def _shown(run: Run, item: TargetRun, told: Told, standing: Standing) -> Shown:
    item.leaves_steps, item.epoch = standing.unfinished == run.run_id, standing.epoch
    gids = (gid for gid in standing.gids if run_of(gid) == run.run_id)
    item.gid = next((gid for gid in gids if told.owns(gid, item.phase)), None)
    if item.gid is not None:
        return Shown.PREPARED
    if (marker := standing.marker(run.run_id)) is not None:
        # Other calls may have had a turn since then.
        item.epoch, item.marked_by = marker.epoch, marker.digest
        return Shown.DONE
    return Shown.STEPS if item.leaves_steps else Shown.NOTHING


def _verdicts(run: Run, told: Told, shown: Mapping[str, Shown], *, is_known: bool) -> dict[str, Decision] | None:
    """Return by which decision each phase is settled; None where nobody can tell."""
    by_phase = run.plan.commit is CommitUnit.PHASE and is_known
    halts = run.plan.on_failure is OnFailure.HALT
    groups = [(phase,) for phase in run.plan.phases] if by_phase else [run.plan.phases]
    decisions: dict[str, Decision] = {}
    for group in groups:
        seen = [shown[item.name] for item in run.targets if item.phase in group and item.name in shown]
        decided = told.decided(group[-1], halts=halts)
        made = verdict(decided, seen, is_known=is_known, is_whole=run.cause is None)
        if made is None:
            return None
        decisions |= {phase.name: made for phase in group}
    is_whole = Decision.ABORT not in decisions.values() or halts
    return decisions if is_whole else dict.fromkeys(decisions, Decision.ABORT)


async def _obey(
    run: Run, fleet: Fleet, told: Told, shown: Mapping[str, Shown], decisions: Mapping[str, Decision]
) -> Decision:
    """Bring every database to where the decisions want it, and return the one about the run as a whole."""
    halts = run.plan.on_failure is OnFailure.HALT
    whole = Decision.ABORT if Decision.ABORT in decisions.values() else Decision.COMMIT
    await _write_down_lost(run, told, shown, decisions)
    if told.decisions[-1:] != [("deploy", whole)]:
        await decide(run, whole, scope="deploy")
    run.decided = True
    untold: list[str] = []
    for item in run.targets:
        if item.name in shown:
            belongs = bool(told.targets) or bool(moved_by_this_plan(run, item))
            wanted = action(decisions[item.phase.name], shown[item.name], belongs=belongs)
            if not belongs and shown[item.name] is Shown.NOTHING:
                untold.append(item.name)
            _stand(item, told, shown[item.name], wanted)
            if wanted is Action.RUN_FORWARD:
                await require_files(run, fleet, item, told)
    if untold and whole is Decision.COMMIT:
        _tell_untold(run, untold)
    await commit_everywhere(run, fleet, run.in_stage(Stage.HELD))
    if whole is Decision.ABORT:
        await take_back(run, fleet, committed=not halts)
    return whole


async def _write_down_lost(run: Run, told: Told, shown: Mapping[str, Shown], decisions: Mapping[str, Decision]) -> None:
    """Write down what the journal has lost, or has not heard of, and what a decision about all would hide.

    Whoever finds this recovery cut off after that decision leaves out the databases of which nothing tells that the run
    had begun with them, and takes a phase that stays committed for one that was given up.
    """
    for item in run.targets:
        each = shown.get(item.name)
        is_lost = item.name in told.targets and item.name not in told.tiers
        if is_lost and each is not None and action(decisions[item.phase.name], each) is not Action.LEAVE:
            tier = Tier.COMPENSATED if each is Shown.STEPS else Tier.TWO_PHASE
            await run.journal.append(run.run_id, RecordKind.INTENT, database=item.name, data={"tier": str(tier)})
        if item.gid is not None and item.gid not in told.gids:
            # Once it is decided, a transaction that is not written down is another run's.
            await run.journal.append(run.run_id, RecordKind.PREPARING, database=item.name, data={"gid": item.gid})
    if len({*decisions.values()}) > 1:
        for phase in run.plan.phases:
            if decisions[phase.name] is Decision.COMMIT and told.decided(phase, halts=True) is not Decision.COMMIT:
                await decide(run, Decision.COMMIT, scope=phase.name)


def _tell_untold(run: Run, names: Sequence[str]) -> None:
    """Tell which databases of the plan were left alone since nothing says that the run was at work on them."""
    message = f"nothing of the run {run.run_id} is left on {', '.join(names)}: left as they are"
    error = ErrorInfo("no_trace", message, hint="smooth-orchestrate deploy PLAN brings them up to date")
    run.further.append(RunError.of(error))
    for name in names:
        get_logger().warning(EventName.LOG_MESSAGE, logger="recovery", message=message, database=name)


def _stand(item: TargetRun, told: Told, shown: Shown, wanted: Action) -> None:
    """Note how far a database has come, so that what a run does next settles it."""
    item.back = told.back.get(item.name)
    if (held := told.held.get(item.name)) is not None:
        item.steps, item.before, item.received = [*held.steps], held.before, held.received
        item.held_back, item.contracted = held.held_back, held.contracted
    item.tier = Tier.COMPENSATED if shown is Shown.STEPS else told.tiers.get(item.name, Tier.TWO_PHASE)
    match wanted:
        case Action.RUN_FORWARD | Action.COMMIT:
            item.stage = Stage.HELD
        case Action.LEAVE | Action.REVERSE if shown is Shown.DONE:
            item.stage = Stage.COMMITTED
        case Action.REVERSE | Action.ROLL_BACK:
            item.stage, item.is_lost = Stage.WORKING, True
            if wanted is Action.REVERSE:
                item.steps = []
        case _:
            item.steps = []
