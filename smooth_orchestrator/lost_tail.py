"""What a journal has lost that misses its last records: what the rest of it makes up for, and what nobody can tell."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from smooth_migrations.protocol import Back, ErrorInfo, Received
from smooth_orchestrator.by_hand import left_to_hand
from smooth_orchestrator.config import Tier
from smooth_orchestrator.decision import decide
from smooth_orchestrator.errors import NotInPlan
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.journal import Journal, RecordKind
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.report import NO_TRACE, UNDECIDED, UNKNOWN_MOVES, RunError
from smooth_orchestrator.rules import Action, Shown, action
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.told import Told, records_of

__all__ = [
    "adopt",
    "give_up",
    "leave_to_operator",
    "lost_back",
    "make_up_for",
    "not_to_be_taken_back",
    "tell_needless",
    "tell_or_fail",
    "tell_untold",
    "undecided",
    "untold_tier",
    "write_down_lost",
]

_NEEDLESS_HINT: Final = "leave it out; smooth-orchestrate status PLAN shows what is to be settled on each database"

# What a server of this kind can do, at the most.
_STRONGEST: Final = {"postgresql": Tier.TWO_PHASE, "sqlite": Tier.HELD_OPEN}


async def adopt(run: Run) -> None:
    """Write down that a run which the journal does not know is settled by it, so that it is unfinished until it is.

    Whoever goes on with that obeys the same decision, and looks at every database again.

    Raises:
        JournalError: it could not be written; then nothing is decided.
    """
    names = [item.name for item in run.targets]
    data = {"deploy": run.plan.name, "command": "deploy", "digest": run.plan.digest, "targets": names, "adopted": True}
    identities = {item.name: item.identity.to_dict() for item in run.targets if item.identity is not None}
    await run.journal.append(run.run_id, RecordKind.RUN_STARTED, data={**data, "identities": identities})


async def make_up_for(journal: Journal, deploy: str, told: Told) -> None:
    """Add what a rollback was to take back where the journal has lost its intents: the run that it takes back tells.

    Whether it was told to lose what was written since is lost with them: it is not.

    Args:
        journal: of the deploy.
        deploy: its name.
        told: what the rollback's own records say.

    Raises:
        JournalError: the journal cannot be asked.
    """
    if told.takes_back is None:
        return
    taken = Told.of(records_of(deploy, await journal.records(told.takes_back)))
    for name in told.targets - told.back.keys() if taken.targets else ():
        held = taken.held.get(name)
        steps, received = (held.steps, held.received) if held else ((), Received())
        told.back[name] = Back(told.takes_back, steps, received, discards=False)


def lost_back(item: TargetRun) -> Back | None:
    """Return what was to be taken back on a target where its own steps alone tell that the run is a rollback. Pure.

    Where that was decided these are all; what they have left to be done is to be called done.
    """
    if not item.left or not all(step.backwards for step in item.left):
        return None
    steps = tuple(replace(step, backwards=False) for step in reversed(item.left))
    return Back("", steps, discards=False)


def untold_tier(item: TargetRun, shown: Shown) -> Tier:
    """Return by which tier a target was moved where no record tells: by what it shows, and what it can. Pure."""
    if shown is Shown.STEPS:
        return Tier.COMPENSATED
    return _STRONGEST.get(item.target.vendor, Tier.COMPENSATED)


def not_to_be_taken_back(told: Told, shown: Mapping[str, Shown]) -> list[str]:
    """Return the databases that were committed, and of which the journal does not tell what was moved. Pure."""
    return sorted(
        name for name, each in shown.items() if action(Decision.ABORT, each, is_told=name in told.held) is Action.ASK
    )


def undecided(run: Run, told: Told, shown: Mapping[str, Shown]) -> ErrorInfo:
    """Return the error that says what an operator has to decide, and what each choice means. Pure."""
    if lost := not_to_be_taken_back(told, shown):
        return ErrorInfo(
            UNDECIDED,
            f"the journal has lost what the run {run.run_id} moved on {', '.join(lost)}, where it is committed",
            hint="smooth-orchestrate recover PLAN --commit makes the other databases new as well; "
            "--abort takes back what can be taken back, and leaves these to you",
        )
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


def give_up(run: Run, name: str, *, accepts: bool) -> None:
    """Tell of a database of the run that is not in the plan; it fails the run unless an operator says how that ends."""
    error = ErrorInfo(
        NotInPlan.code,
        f"{name} is not in this plan",
        hint="recover with the plan as it was; where it is gone for good, with --abort or --commit, as was decided",
    )
    tell_or_fail(run, error, accepts=accepts)


def tell_or_fail(run: Run, error: ErrorInfo, database: str | None = None, *, accepts: bool) -> None:
    """Tell of what an operator accepts; it fails the run unless one does."""
    if accepts:
        run.further.append(RunError.of(error, database=database))
    else:
        run.fail(error, database)


def leave_to_operator(run: Run, item: TargetRun) -> None:
    """Leave a target in doubt that is committed and can neither stay so nor be taken back."""
    message = f"{item.name} is committed, and nobody knows what was moved there"
    item.stage = Stage.IN_DOUBT
    item.error = left_to_hand(run, item, ErrorInfo(UNKNOWN_MOVES, message))
    run.fail(item.error, item.name)


def tell_needless(command: Run, names: AbstractSet[str]) -> None:
    """Tell which databases an operator has accepted although no run waited for that. It refuses nothing.

    Args:
        command: the run of the command, which reports it.
        names: of these databases.
    """
    for name in sorted(names):
        message = f"--accept {name} was not needed: no run waits for that database to be moved by hand"
        error = RunError("needless_accept", message, hint=_NEEDLESS_HINT, database=name)
        command.further.append(error)
        get_logger().warning(EventName.LOG_MESSAGE, logger="recovery", message=message, database=name)


def tell_untold(run: Run, names: Sequence[str], *, accepts: bool) -> None:
    """Tell which databases were left alone since nothing says that the run was at work on them.

    Args:
        run: which; it needs an operator until one accepts that.
        names: of these databases.
        accepts: whether one does.
    """
    message = f"nothing of the run {run.run_id} is left on {', '.join(names)}: left as they are"
    hint = (
        "smooth-orchestrate deploy PLAN brings them up to date, unless it was a rollback that was cut off"
        if accepts
        else "recover with the plan as it was, if it has been changed; recover PLAN --commit accepts them as they are"
    )
    error = ErrorInfo(NO_TRACE, message, hint=hint)
    tell_or_fail(run, error, accepts=accepts)
    for name in names:
        get_logger().warning(EventName.LOG_MESSAGE, logger="recovery", message=message, database=name)


async def write_down_lost(run: Run, told: Told, shown: Mapping[str, Shown], decisions: Mapping[str, Decision]) -> None:
    """Write down what the journal has lost, or has not heard of, and what a decision about all would hide.

    Whoever finds this recovery cut off after that decision leaves out the databases of which nothing tells that the run
    had begun with them, and takes a phase that stays committed for one that was given up.

    Raises:
        JournalError: it could not be written; then nothing is decided.
    """
    for item in run.targets:
        each = shown.get(item.name)
        is_lost = told.is_known and item.name in told.targets and item.name not in told.tiers
        if is_lost and each is not None and action(decisions[item.phase.name], each) is not Action.LEAVE:
            data = {"tier": str(untold_tier(item, each))}
            await run.journal.append(run.run_id, RecordKind.INTENT, database=item.name, data=data)
        if item.gid is not None and item.gid not in told.gids:
            # Once it is decided, a transaction that is not written down is another run's.
            await run.journal.append(run.run_id, RecordKind.PREPARING, database=item.name, data={"gid": item.gid})
    if len({*decisions.values()}) > 1:
        for phase in run.plan.phases:
            if decisions[phase.name] is Decision.COMMIT and told.decided(phase, halts=True) is not Decision.COMMIT:
                await decide(run, Decision.COMMIT, scope=phase.name)
