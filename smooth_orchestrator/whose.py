"""Whose run it was that left something, and whether a database of this plan is one of that run's."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import anyio

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_orchestrator.errors import Mistake, NotInPlan, Refused
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.glances import shows_mark
from smooth_orchestrator.identity import Identity
from smooth_orchestrator.journal import Journal, RecordKind, RunSummary, summary_of
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.report import MISSING_DATABASE
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.standing import ask_standing
from smooth_orchestrator.told import Told, records_of

__all__ = [
    "Unmarked",
    "another_database",
    "another_environment",
    "heard_of",
    "identity_of",
    "known_elsewhere",
    "missing_database",
    "unmarked",
]

_HINT = "run this with the plan, and its environment, as it was"
_ANOTHER_HINT = "recover with the plan, and in the environment, of that run, where it is {address}"
_RESTORED_HINT = (
    "; where that is gone, and this one was restored or moved in its place, with --abort or --commit, as was decided: "
    "this one is left as it is"
)
_APART_HINT = "; environments that share a journal need deploys of different names"
_MISSING_HINT = "mount the volume that it is on; where there is none to be had, make an empty file, or restore a backup"
_UNTOLD_HINT = "take it back by hand, with manage.py migrate, or deploy a release that goes forward from here"


async def heard_of(
    plan: Plan, journal: Journal, run_id: str, gids: Collection[str] = ()
) -> tuple[Told, RunSummary | None]:
    """Return what the journal tells of the deploy's run; of another deploy's, where the deploy has none of that id.

    Args:
        plan: of the deploy.
        journal: where runs are written down.
        run_id: the run's, which other deploys may have given to theirs.
        gids: of transactions that stand prepared under that id.

    Returns:
        What its records say, and how it began, if the journal knows it.

    Raises:
        NotInPlan: the transactions are not those of the run that they would be taken for.
        JournalError: the journal cannot be asked, or is damaged.
    """
    records = await journal.records(run_id)
    openings = {
        str(each.data.get("deploy")): summary_of(each, None) for each in records if each.kind is RecordKind.RUN_STARTED
    }
    # The deploy's own first, then the one that began last. What was adopted and settled may come up again by that name,
    # and nobody knows whether it is the same.
    named = (name for name in dict.fromkeys([plan.name, *reversed(openings)]) if name in openings)
    heard = {name: Told.of(records_of(name, records)) for name in named}
    told = {name: each for name, each in heard.items() if not (each.is_adopted and each.has_ended)}
    deploys = [*told]
    if not deploys:
        return Told.of(records_of(plan.name, records)), None
    owners = {_owner(told, gid) for gid in gids} or {deploys[0]}
    owner = owners.pop()
    if owners or owner is None or (plan.name in told and owner != plan.name):
        whose = f"the deploy {owner}" if owner else "another deploy, or another journal,"
        raise NotInPlan(
            f"{', '.join(sorted(gids))} was prepared by a run {run_id} of {whose} and not by that of {plan.name}",
            hint="smooth-orchestrate recover with the plan of that run settles it",
        )
    told[owner].foreign = frozenset().union(*(each.gids for name, each in told.items() if name != owner))
    return told[owner], openings[owner]


def _owner(told: dict[str, Told], gid: str) -> str | None:
    """Return the deploy that has prepared a transaction; one that may have lost its last records where none tells."""
    exact = (name for name, each in told.items() if gid in each.gids)
    open_ones = (name for name, each in told.items() if not each.decisions and not each.has_ended)
    return next(exact, None) or next(open_ones, None)


def identity_of(run: Run, item: TargetRun, standing: Standing | None = None) -> Identity:
    """Return which database a target is, as its inspection or a look at it tells. Pure."""
    physical = standing.physical if standing else item.found.physical if item.found else ""
    return Identity.of(run.plan, item.target, physical)


def another_database(run: Run, item: TargetRun, told: Told, *, is_spare: bool) -> ErrorInfo:
    """Return the error that a target of this plan is not the run's of that name, and shows nothing of the run. Pure.

    One that shows something of it is the run's, also where it was restored elsewhere since.

    Args:
        run: which.
        item: the target.
        told: what the journal tells of the run.
        is_spare: whether another database of the plan is the run's: then an operator may leave this one out.
    """
    message = f"{item.name} is not in this plan: it was another database in the run {run.run_id}"
    hint = _ANOTHER_HINT.format(address=told.identities[item.name].address) + (_RESTORED_HINT if is_spare else "")
    return ErrorInfo(NotInPlan.code, message, hint=hint + _APART_HINT)


def another_environment(run: Run, told: Told) -> ErrorInfo:
    """Return what is said of a run each of whose databases is another one than this plan's of that name. Pure."""
    places = ", ".join(sorted(each.address for each in told.identities.values()))
    message = f"the run {run.run_id} is not settled, and its databases are none of this plan's: it is left alone"
    hint = f"smooth-orchestrate recover with the plan, and in the environment, of that run settles it: {places}"
    return ErrorInfo("another_environment", message, hint=hint + _APART_HINT)


def known_elsewhere(run: Run, item: TargetRun, standing: Standing) -> NotInPlan:
    """Return the error that a run which the journal does not know has a mark of another deploy in a target. Pure.

    That mark may be its decision, and whoever has its journal can tell.
    """
    whose = ", ".join(standing.elsewhere)
    return NotInPlan(
        f"{item.name} shows that a run {run.run_id} of the deploy {whose} has committed there, and the journal of "
        f"{run.plan.name} does not know it",
        hint="smooth-orchestrate recover with the plan of that deploy settles it",
    )


def missing_database(run: Run, item: TargetRun, told: Told, standing: Standing) -> ErrorInfo | None:
    """Return why nobody can tell what a run has left in a target whose file is not there; None where it left nothing.

    Pure. That is so where the file was not there when the run began either, and it has not come to the barrier since;
    and where the run's file is another one.
    """
    if not standing.is_missing or (item.name in told.missing and item.name not in told.heard):
        return None
    if told.was_another(item.name, identity_of(run, item, standing)):
        return None
    message = f"the file of {item.name} is not there"
    return ErrorInfo(MISSING_DATABASE, message, hint=_MISSING_HINT)


@dataclass(frozen=True, slots=True)
class Unmarked:
    """The databases of a plan that do not show that a committed run has moved them, as its journal says.

    Args:
        run_id: the run.
        names: of these databases.
        others: of those among them that are known to be other ones than the run's of that name.
        is_elsewhere: whether the run has moved no database of this plan, but such of the same names.
        untold: databases that do show it, and of which the journal does not tell what it moved there.
        silent: those that could not be asked, and why.
        unknown: of those that the run has moved, as the journal says, and that could not be asked: the ones that were
            at another address then.
    """

    run_id: str
    names: frozenset[str]
    others: frozenset[str]
    is_elsewhere: bool
    untold: frozenset[str]
    silent: Mapping[str, ErrorInfo]
    unknown: frozenset[str]

    def unheard(self, names: Collection[str], *, hint: str) -> Refused:
        """Return the error that names those of the silent ones for which nothing else can speak."""
        findings = [Mistake(name, self.silent[name].message, self.silent[name].hint) for name in sorted(names)]
        return Refused(self.not_asked(names), hint=hint, findings=findings)

    def not_asked(self, names: Collection[str]) -> str:
        """Return what is so of silent databases, in words."""
        return f"nobody can ask {', '.join(sorted(names))} whether the run {self.run_id} has moved that database"

    def refusal(self) -> Refused | None:
        """Return the error that names them, if there are any."""
        if self.untold:
            names = ", ".join(sorted(self.untold))
            return Refused(f"the journal has lost what the run {self.run_id} moved on {names}", hint=_UNTOLD_HINT)
        if not self.names:
            return None
        return Refused(self.what, hint=_HINT)

    @property
    def what(self) -> str:
        """What is so of the databases that do not show it, in words."""
        names = ", ".join(sorted(self.names))
        return f"nothing on {names} shows that the run {self.run_id} has moved that database"


async def unmarked(run: Run, fleet: Fleet, run_id: str, told: Told) -> Unmarked:
    """Return which databases of this plan do not show that a committed run has moved them, as its journal says.

    Only reads. All are left out where an earlier version wrote the run's beginning.

    Args:
        run: of the command that asks.
        fleet: its workers.
        run_id: of the committed run.
        told: what its records say.
    """
    looking = Run(run.plan, run_id, run.journal)
    seen = {item.name for item in run.targets if item.glance and item.glance.marked_by == run_id}
    found: dict[str, bool] = {}
    untold: set[str] = set()
    silent: dict[str, ErrorInfo] = {}
    unknown: set[str] = set()

    async def look(item: TargetRun) -> None:
        # A worker has one session at a time, and most databases show it.
        if item.name in seen or await shows_mark(item, fleet, run.plan.name, run_id):
            untold.update({item.name} - told.heard if told.is_known else ())
            return
        standing = await ask_standing(looking, fleet, item)
        if not isinstance(standing, Standing):
            silent[item.name] = standing
            if item.name in told.moved and told.was_another(item.name, identity_of(looking, item)):
                unknown.add(item.name)
        elif standing.marker(run_id) is not None:
            untold.update({item.name} - told.heard if told.is_known else ())
        elif item.name in told.moved:
            found[item.name] = told.was_another(item.name, identity_of(looking, item, standing))

    async with anyio.create_task_group() as group:
        for item in looking.targets:
            if item.name in told.identities and (item.name in told.moved or item.name not in told.heard):
                group.start_soon(look, item)
    others = frozenset(name for name, is_another in found.items() if is_another)
    is_elsewhere = bool(told.moved) and told.moved <= others
    names = frozenset(found)
    return Unmarked(run_id, names, others, is_elsewhere, frozenset(untold), silent, frozenset(unknown))
