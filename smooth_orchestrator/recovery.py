"""Settle what interrupted runs have left, by their journal's decisions and by what their databases show."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.config import CommitUnit, OnFailure, Tier
from smooth_orchestrator.decision import commit_everywhere, decide
from smooth_orchestrator.errors import Refused
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import LOOK_BACK, InNameOf, Journal, RunSummary
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.losing import keep_what_would_be_lost
from smooth_orchestrator.lost_tail import (
    adopt,
    give_up,
    leave_to_operator,
    lost_back,
    make_up_for,
    not_to_be_taken_back,
    tell_needless,
    tell_or_fail,
    tell_untold,
    undecided,
    untold_tier,
    write_down_lost,
)
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.report import RunError, RunOutcome
from smooth_orchestrator.rules import Action, Shown, action, verdict
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.saga import reverse, take_back
from smooth_orchestrator.same_files import moved_by_this_plan, newer_than_left, require_files
from smooth_orchestrator.settled import Said, Settled
from smooth_orchestrator.sight import Seen, is_elsewhere, look_at, runs_left
from smooth_orchestrator.suggestions import did_you_mean, quoted
from smooth_orchestrator.told import Told
from smooth_orchestrator.whose import another_database, another_environment, heard_of

__all__ = ["of_another_environment", "settle_earlier", "unsettled"]

_NEWER_HINT: Final = "recover PLAN --commit with the files of the release that was interrupted, or recover PLAN --abort"


async def settle_earlier(
    command: Run,
    fleet: Fleet,
    *,
    begins: Callable[[], None],
    said: Said,
) -> tuple[Settled, ...]:
    """Settle every run of the deploy that has not ended, or that needed an operator, oldest first. Safe to repeat.

    One of another environment is left alone, and told of, unless an operator asks for it to be settled.

    The deploy's lease must be held: then none of them is at work any more. So are runs of which their databases tell:
    those that the journal does not know, and those that have ended, where a server has done late what it was asked for.

    Args:
        command: the run of the command that settles them, by the deploy's plan as it is now.
        fleet: its workers.
        begins: called when there is a run to be settled, before anything is done about it.
        said: by an operator.

    Raises:
        Locked: somebody is at work on one of their databases.
        Refused: the operator's decision is not the one that was made, a database that was named is not in the plan, or
            the command was given the id of a run that is another environment's.
        JournalError: the journal cannot be asked, or takes no decision.
    """
    plan, journal = command.plan, command.journal
    _refuse_unknown(plan, said.accepted)
    left = await unsettled(plan.name, journal)
    for summary in left:
        # A journal that is damaged decides nothing, about none of them.
        await heard_of(plan, journal, summary.run_id)
    if left:
        begins()
    settled: list[Settled] = []
    for summary in reversed(left):
        each = await _settle(plan, journal, fleet, summary, said=said)
        if isinstance(each, Settled):
            settled.append(each)
        else:
            _leave_alone(command, summary, each)
    known = {each.run.run_id for each in settled if each.outcome is RunOutcome.NEEDS_OPERATOR}
    if settled:
        command.look_again()
    quiet = {item.name for item in command.targets if item.is_quiet}
    for run_id, seen in sorted((await runs_left(plan, journal, fleet, known, quiet=quiet)).items()):
        begins()
        command.look_again()
        _told, found = await heard_of(plan, journal, run_id, {*chain(*seen.values())})
        summary = found or RunSummary(run_id, plan.name, "deploy", plan.digest, datetime.now(UTC))
        each = await _settle(plan, journal, fleet, summary, is_new=found is None, seen=seen, said=said)
        if isinstance(each, Settled):
            settled.append(each)
    tell_needless(command, said.accepted - {*chain(*(each.run.accepted | each.run.unaccepted for each in settled))})
    return tuple(settled)


def _refuse_unknown(plan: Plan, accepted: AbstractSet[str]) -> None:
    names = [target.name for phase in plan.phases for target in phase.targets]
    for name in sorted(accepted - {*names}):
        raise Refused(f"the plan has no database {quoted(name)}", hint=did_you_mean(name, names))


def _leave_alone(command: Run, summary: RunSummary, error: ErrorInfo) -> None:
    """Tell of a run that is another environment's.

    Raises:
        Refused: the command was given its id, and would hide it.
    """
    if summary.run_id == command.run_id:
        raise Refused(error.message, hint=f"use another --run-id; {error.hint}")
    command.further.append(RunError.of(error))
    get_logger().warning(EventName.LOG_MESSAGE, logger="recovery", message=error.message, error=error)


async def of_another_environment(plan: Plan, journal: Journal, fleet: Fleet, run_id: str) -> bool:
    """Return whether a run that is to be settled is another environment's; as `is_elsewhere` does.

    Raises:
        JournalError: the journal cannot be asked.
    """
    told, _summary = await heard_of(plan, journal, run_id)
    return await is_elsewhere(Run(told.plan_of(plan), run_id, journal), fleet, told)


def _is_unsettled(summary: RunSummary) -> bool:
    return summary.finished_at is None or summary.outcome == RunOutcome.NEEDS_OPERATOR


async def unsettled(deploy: str, journal: Journal) -> tuple[RunSummary, ...]:
    """Return the deploy's runs that have not ended, or that needed an operator, newest first. Reads only.

    Among them those before a run that was found without its journal, and settled, while they waited for an operator.

    Raises:
        JournalError: the journal cannot be asked.
    """
    return tuple(filter(_is_unsettled, await journal.runs(deploy, limit=LOOK_BACK)))


async def _settle(
    plan: Plan,
    journal: Journal,
    fleet: Fleet,
    summary: RunSummary,
    *,
    is_new: bool = False,
    seen: Mapping[str, Collection[str]] | None = None,
    said: Said,
) -> Settled | ErrorInfo:
    """Settle one run; return what is to be said of one that is another environment's, of which nothing is touched.

    Args:
        plan: of the deploy, as it is now.
        journal: where the run is written down.
        fleet: its workers.
        summary: the run.
        is_new: whether the journal does not know it; then it is written down there before anything is decided.
        seen: databases that are known to hold something of it, whether or not the journal tells of them, and what gids.
        said: by an operator.
    """
    started_s = time.monotonic()
    seen = seen or {}
    told = Told() if is_new else (await heard_of(plan, journal, summary.run_id, {*chain(*seen.values())}))[0]
    if told.deploy not in {None, plan.name}:
        journal = InNameOf(journal, str(told.deploy))
    await make_up_for(journal, told.deploy or plan.name, told)
    if said.discards:
        told.back = {name: replace(back, discards=True) for name, back in told.back.items()}
    run = Run(told.plan_of(plan), summary.run_id, journal)
    run.takes_back, run.finalises = told.takes_back, told.finalises
    run.compares, run.discards, run.accepts = said.compares, said.discards, said.accepted
    items = [item for item in run.targets if told.may_concern(item.name) or item.name in seen or is_new]
    names = [item.name for item in items]
    get_logger().warning(EventName.RECOVER_STARTED, databases=names)
    open_ones = {name for name, tier in told.tiers.items() if tier is Tier.HELD_OPEN}
    found = await look_at(run, fleet, told, items, fenced=open_ones)
    shown = found.shown
    may_pass = bool(found.others) and not (shown or seen or said.is_asked)
    if may_pass and await is_elsewhere(run, fleet, told):
        return another_environment(run, told)
    _leave_out(run, told, found, sorted(_may_be_gone(told, run.plan) - {*names}), accepts=said.decision is not None)
    # What was seen counts if nobody else could have begun to act by then; whoever does so later has another epoch.
    await journal.renew()
    decisions = _verdicts(run, told, shown, is_whole=run.cause is None)
    decision: Decision | None = None
    # What is decided is done wherever that can be; the others are named, and wait.
    if decisions is None and said.decision is None:
        if run.cause is None:
            run.fail(undecided(run, told, shown))
        for item in run.targets:
            if shown.get(item.name, Shown.NOTHING) is not Shown.NOTHING:
                item.stage = Stage.IN_DOUBT
    else:
        wanted = _forced(run, decisions, said.decision)
        if decisions is None and said.decision is Decision.COMMIT:
            await _refuse_newer(run, fleet, shown)
        if is_new:
            await adopt(run)
        decision = await _obey(run, fleet, told, shown, wanted, said=said)
    outcome = _outcome(run, decision)
    get_logger().warning(
        EventName.RECOVER_SETTLED,
        outcome=str(outcome),
        duration_ms=round((time.monotonic() - started_s) * 1000, 1),
        databases=names,
        error=run.cause,
        **({"decision": str(decision)} if decision else {}),
    )
    return Settled(run, summary, outcome, told.decisions[-1][1] if told.decisions else None)


def _leave_out(run: Run, told: Told, found: Seen, gone: Sequence[str], *, accepts: bool) -> None:
    """Tell of the run's databases that are not in the plan; they fail the run unless an operator says how it ends."""
    for name in gone:
        give_up(run, name, accepts=accepts)
    # Where none is the run's it is the plan, or its environment, that is another.
    is_ours = bool(found.shown)
    for item in found.others:
        failure = another_database(run, item, told, is_spare=is_ours)
        tell_or_fail(run, failure, item.name, accepts=accepts and is_ours)
    if (gone or found.others) and (is_ours or not found.others):
        run.settled_by = _choices(run, told, found.shown)


def _may_be_gone(told: Told, plan: Plan) -> AbstractSet[str]:
    """Return the databases that the run has begun with, or was to come to in a phase of its own decision."""
    if plan.commit is CommitUnit.DEPLOY:
        return told.tiers.keys()
    return {name for name in told.targets | told.tiers.keys() if told.may_concern(name)}


def _outcome(run: Run, decision: Decision | None) -> RunOutcome:
    if run.cause is not None or run.in_stage(Stage.IN_DOUBT):
        return RunOutcome.NEEDS_OPERATOR
    if decision is Decision.COMMIT:
        return RunOutcome.COMMITTED
    return RunOutcome.HALTED if run.in_stage(Stage.COMMITTED) else RunOutcome.ROLLED_BACK


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


async def _refuse_newer(run: Run, fleet: Fleet, shown: Mapping[str, Shown]) -> None:
    """Make sure that what an operator wants to be new becomes what the run was about to make it.

    Raises:
        Refused: other migrations would run as well; nothing is decided.
    """
    stepped = [item for item in run.targets if shown.get(item.name) is Shown.STEPS]
    if (failure := await newer_than_left(run, fleet, stepped)) is not None:
        raise Refused(f"the run {run.run_id} cannot be committed: {failure.message}", hint=_NEWER_HINT)


def _choices(run: Run, told: Told, shown: Mapping[str, Shown]) -> tuple[Decision, ...]:
    """Return by which decision an operator settles a run without the databases that are gone, or another ones now."""
    made = _verdicts(run, told, shown, is_whole=not run.in_stage(Stage.IN_DOUBT))
    wanted = {*made.values()} if made is not None else {*Decision}
    return tuple(sorted(wanted)) if made is None or len(wanted) == 1 else ()


def _verdicts(run: Run, told: Told, shown: Mapping[str, Shown], *, is_whole: bool) -> dict[str, Decision] | None:
    """Return by which decision each phase is settled; None where nobody can tell."""
    if told.rehearses and Shown.DONE not in shown.values():
        # A rehearsal commits nothing, also where it could not be looked at.
        return dict.fromkeys([phase.name for phase in run.plan.phases], Decision.ABORT)
    by_phase = run.plan.commit is CommitUnit.PHASE and told.is_known
    halts = run.plan.on_failure is OnFailure.HALT
    # A phase that has come into the plan since was no part of it, and goes with the others.
    own = {item.phase.name for item in run.targets if item.name in shown or item.name in told.targets}
    phases = tuple(phase for phase in run.plan.phases if phase.name in own or not by_phase)
    decisions: dict[str, Decision] = {}
    for group in [(phase,) for phase in phases] if by_phase else [phases]:
        seen = [shown[item.name] for item in run.targets if item.phase in group and item.name in shown]
        decided = told.decided(group[-1], halts=halts)
        made = verdict(decided, seen, is_known=told.is_known, is_whole=is_whole)
        if made is None:
            return None
        decisions |= {phase.name: made for phase in group}
    whole = Decision.ABORT if Decision.ABORT in decisions.values() or not decisions else Decision.COMMIT
    decisions |= {phase.name: whole for phase in run.plan.phases if phase not in phases}
    if whole is Decision.COMMIT or halts:
        return decisions
    if not_to_be_taken_back(told, shown) and ("deploy", Decision.ABORT) not in told.decisions:
        return None
    return dict.fromkeys(decisions, Decision.ABORT)


async def _obey(
    run: Run,
    fleet: Fleet,
    told: Told,
    shown: Mapping[str, Shown],
    decisions: Mapping[str, Decision],
    *,
    said: Said,
) -> Decision:
    """Bring every database to where the decisions want it, and return the one about the run as a whole.

    Those of which nothing tells that they were the run's stay as they are, where an operator accepts that.
    """
    halts = run.plan.on_failure is OnFailure.HALT
    whole = Decision.ABORT if Decision.ABORT in decisions.values() else Decision.COMMIT
    await write_down_lost(run, told, shown, decisions)
    if told.decisions[-1:] != [("deploy", whole)]:
        await decide(run, whole, scope="deploy")
    run.decided = True
    untold: list[str] = []
    for item in run.targets:
        if item.name in shown:
            belongs = told.is_known or bool(moved_by_this_plan(run, item))
            is_told = item.name in told.held
            wanted = action(
                decisions[item.phase.name],
                shown[item.name],
                belongs=belongs,
                is_told=is_told,
                is_accepted=item.name in said.accepted,
            )
            if not belongs and shown[item.name] is Shown.NOTHING:
                untold.append(item.name)
            _stand(item, told, shown[item.name], wanted)
            await _look_after(run, fleet, told, item, wanted)
    if untold and whole is Decision.COMMIT:
        tell_untold(run, untold, accepts=said.decision is Decision.COMMIT)
    await commit_everywhere(run, fleet, run.in_stage(Stage.HELD))
    if whole is Decision.ABORT:
        stays = {phase for phase, made in decisions.items() if made is Decision.COMMIT} if halts else frozenset[str]()
        if not said.discards:
            await keep_what_would_be_lost(run, fleet, stays)
        await take_back(run, fleet, stays=stays)
    return whole


async def _look_after(run: Run, fleet: Fleet, told: Told, item: TargetRun, wanted: Action) -> None:
    match wanted:
        case Action.RUN_FORWARD:
            await require_files(run, fleet, item, told)
        case Action.ASK:
            leave_to_operator(run, item)
        case Action.UNMARK:
            run.accepted.add(item.name)
            await _unmark(run, fleet, item)


async def _unmark(run: Run, fleet: Fleet, item: TargetRun) -> None:
    """Remove the run's mark from a database that an operator has put right; of no step, the mark alone goes."""
    if (failure := await reverse(run, fleet, item)) is None:
        item.stage = Stage.ROLLED_BACK
        return
    item.stage, item.error = Stage.IN_DOUBT, failure
    run.fail(failure, item.name)


def _stand(item: TargetRun, told: Told, shown: Shown, wanted: Action) -> None:
    """Note how far a database has come, so that what a run does next settles it."""
    item.back = told.back.get(item.name) or lost_back(item)
    item.moves_unknown = shown is not Shown.NOTHING and item.name not in told.held
    if (held := told.held.get(item.name)) is not None:
        item.hold(held)
    item.tier = Tier.COMPENSATED if shown is Shown.STEPS else told.tiers.get(item.name, untold_tier(item, shown))
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
