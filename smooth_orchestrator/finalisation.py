"""When the contract halves of earlier runs are due, and what forbids them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Final

from smooth_migrations.protocol import ContractHalf
from smooth_orchestrator.config import CommitUnit
from smooth_orchestrator.errors import Mistake, Refused
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.gates import missing_gates, pass_gate
from smooth_orchestrator.journal import LOOK_BACK, RecordKind
from smooth_orchestrator.plan import Phase, Plan
from smooth_orchestrator.preflight import inspect_targets, unread
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.reversal import taken_back_by
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.told import Told, records_of
from smooth_orchestrator.whose import unmarked

__all__ = ["contracting", "due_at", "forbidden_sessions", "halves_of", "look_for_halves", "pass_guards"]

_UNKNOWN_HINT: Final = "manage.py finalise_migrations --force does it on one database, whatever became of the others"


def contracting(plan: Plan) -> Plan:
    """Return the plan of a contract phase: one decision for all, and no gates but its own. Pure."""
    return replace(plan, phases=tuple(replace(phase, gate=()) for phase in plan.phases), commit=CommitUnit.DEPLOY)


async def look_for_halves(run: Run, fleet: Fleet) -> dict[str, list[ContractHalf]]:
    """Return what is held back anywhere, by the run that did. Reads only.

    Raises:
        Refused: a database cannot be asked.
    """
    run.finalises = ()
    await inspect_targets(run, fleet)
    silent = [mistake for item in run.targets for mistake in unread(item)]
    if silent:
        raise Refused("not every database could be asked what it holds back", findings=silent)
    return halves_of(run.targets)


def halves_of(targets: Iterable[TargetRun]) -> dict[str, list[ContractHalf]]:
    """Return what is held back on targets that were looked at, by the run that did. Pure."""
    halves: dict[str, list[ContractHalf]] = {}
    for item in targets:
        for half in item.found.contract_pending if item.found else ():
            halves.setdefault(half.run_id, []).append(half)
    return halves


async def due_at(run: Run, fleet: Fleet, run_id: str, halves: Sequence[ContractHalf]) -> datetime:
    """Return when the halves of a run are due: after the bake time by the databases' clocks and by the journal's.

    Args:
        run: of the command; its targets were looked at.
        fleet: its workers.
        run_id: the run that has held them back.
        halves: these.

    Raises:
        Refused: nobody knows whether the run has committed everywhere.
    """
    now, bake = datetime.now(UTC), timedelta(milliseconds=run.plan.finalise.bake_time_ms)
    youngest = min(half.age_s for half in halves)
    moments = [now - timedelta(seconds=youngest) + bake]
    if ":" not in run_id:
        moments.append(await _committed_at(run, fleet, run_id) + bake)
    return max(moments)


async def _committed_at(run: Run, fleet: Fleet, run_id: str) -> datetime:
    records = records_of(run.plan.name, await run.journal.records(run_id))
    ends = [record for record in records if record.kind is RecordKind.RUN_FINISHED]
    if not ends:
        raise Refused(f"the journal does not tell whether the run {run_id} has committed", hint=_UNKNOWN_HINT)
    if ends[-1].data["outcome"] == RunOutcome.HALTED:
        return await _gone_on_at(run, fleet, run_id, Told.of(records))
    if ends[-1].data["outcome"] != RunOutcome.COMMITTED:
        raise Refused(
            f"the run {run_id}, which has held something back, ended as {ends[-1].data['outcome']}",
            hint="smooth-orchestrate recover PLAN",
        )
    if missing := Told.of(records).moved - {item.name for item in run.targets}:
        raise Refused(
            f"the run {run_id} moved {', '.join(sorted(missing))}, not in this plan",
            hint=f"finalise with the plan as it was; {_UNKNOWN_HINT}",
        )
    return ends[-1].at


async def _gone_on_at(run: Run, fleet: Fleet, run_id: str, told: Told) -> datetime:
    """Return when a deploy that stands has brought the databases to a release that a halted run had left behind.

    Raises:
        Refused: there is none of these databases, or what the run had moved is not recorded on each of them.
    """
    journal, deploy = run.journal, run.plan.name
    later = takewhile(lambda each: each.run_id != run_id, await journal.runs(deploy, limit=LOOK_BACK))
    ends = [
        each.finished_at
        for each in later
        if each.command == "deploy"
        and each.outcome == RunOutcome.COMMITTED
        and await taken_back_by(journal, deploy, each.run_id) is None
        and await _is_here(run, fleet, each.run_id)
    ]
    behind = tuple(_behind(run, told.halted(run.plan)))
    if behind or not ends or ends[-1] is None:
        raise Refused(
            f"the run {run_id}, which has held something back, was halted: not every database is at its release",
            hint="smooth-orchestrate deploy PLAN goes on from there, and rollback PLAN takes it back",
            findings=behind,
        )
    return ends[-1]


async def _is_here(run: Run, fleet: Fleet, run_id: str) -> bool:
    """Return whether a database of this plan shows that a committed run has moved it: it was no other environment's."""
    told = Told.of(records_of(run.plan.name, await run.journal.records(run_id)))
    lost = await unmarked(run, fleet, run_id, told)
    return bool(told.moved & {item.name for item in run.targets} - lost.names - lost.silent.keys())


def _behind(run: Run, told: Told) -> Iterator[Mistake]:
    """Yield the databases on which a migration is not recorded that the run has moved on another one of its project."""
    moved: dict[str, dict[str, None]] = {}
    for item in run.targets:
        if item.name in told.held:
            steps = (str(step) for step in told.held[item.name].steps if not step.backwards)
            moved.setdefault(item.target.project, {}).update(dict.fromkeys(steps))
    for item in run.targets:
        applied = {*item.found.applied} if item.found else set()
        if missing := [step for step in moved.get(item.target.project, ()) if step not in applied]:
            yield Mistake(item.name, f"{', '.join(missing)} is not recorded as applied")


async def pass_guards(run: Run) -> None:
    """Make sure that the release before is gone, as far as the plan says how to tell.

    Raises:
        Refused: a session of it is connected, or the gate does not pass.
    """
    wanted = run.plan.finalise
    if connected := forbidden_sessions(run):
        raise Refused("the release before is still at work", findings=connected)
    if not wanted.gate:
        return
    gate = Phase("finalise", 0, (), 1, wanted.gate)
    missing = [replace(mistake, place="finalise.gate[0]") for mistake in missing_gates(run.plan, [gate])]
    if missing:
        raise Refused("the gate of finalise cannot be run", findings=missing)
    failure = await pass_gate(run, gate)
    if failure is not None:
        raise Refused(failure.message)


def forbidden_sessions(run: Run) -> list[Mistake]:
    """Return the sessions that the plan forbids; the targets were asked for what is to be finalised. Pure."""
    return [
        Mistake(item.name, f"a session of {name!r} is connected", "end the release that it belongs to")
        for item in run.targets
        for name in (item.found.sessions if item.found else ())
        if any(fnmatchcase(name, glob) for glob in run.plan.finalise.forbid_sessions)
    ]
