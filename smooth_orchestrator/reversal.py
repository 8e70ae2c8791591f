"""Which committed run a rollback takes back, and what of it on which target."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from smooth_migrations.protocol import Back
from smooth_orchestrator.config import CommitUnit
from smooth_orchestrator.errors import Refused
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import LOOK_BACK, Journal, RunSummary
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.run import Run
from smooth_orchestrator.told import Told, records_of
from smooth_orchestrator.whose import Unmarked, unmarked

__all__ = ["backwards", "choose", "give_back", "taken_back_by"]

# How runs end that leave databases new.
_LEAVES_NEW: Final = {RunOutcome.COMMITTED, RunOutcome.HALTED}
_HINT: Final = "smooth-orchestrate runs PLAN lists the runs"


def backwards(plan: Plan) -> Plan:
    """Return the plan of a rollback: the last phase first, one decision for all, and no gates. Pure.

    A gate says whether a release may go on, and this one is taken away.
    """
    phases = tuple(replace(phase, gate=(), index=index) for index, phase in enumerate(reversed(plan.phases)))
    return replace(plan, phases=phases, commit=CommitUnit.DEPLOY)


async def choose(run: Run, fleet: Fleet, wanted: str | None) -> tuple[RunSummary, Told]:
    """Return the run that is to be taken back, and what its records say. Reads only.

    That is the last one that committed on these databases, if only by some of its phases, and no earlier one: the next
    run stands on it.

    Args:
        run: the rollback.
        fleet: its workers.
        wanted: the run that was asked for.

    Raises:
        Refused: there is none, it is another one, it has been taken back already, or a database does not show it or
            cannot be asked.
        JournalError: the journal cannot be asked.
    """
    journal, deploy = run.journal, run.plan.name
    taken_back: dict[str, str] = {}
    finalised: dict[str, str] = {}
    committed = [each for each in await journal.runs(deploy, limit=LOOK_BACK) if each.outcome in _LEAVES_NEW]
    # Before anything is said of the runs after it: of one that nobody knows there are none.
    if wanted is not None and wanted not in {each.run_id for each in committed}:
        raise Refused(f"the journal holds no committed run {wanted!r}", hint=_HINT)
    for summary in committed:
        told = Told.of(records_of(deploy, await journal.records(summary.run_id)))
        if summary.outcome == RunOutcome.HALTED:
            told = told.halted(run.plan)
        if wanted == summary.run_id and (told.takes_back is not None or told.finalises is not None):
            raise Refused(f"the run {wanted} is a {summary.command}, and no deploy", hint=_HINT)
        if told.finalises is not None:
            finalised |= dict.fromkeys(told.finalises, summary.run_id)
        elif summary.run_id in taken_back:
            if wanted in {None, summary.run_id}:
                raise Refused(
                    f"the run {summary.run_id} was taken back by {taken_back[summary.run_id]}",
                    hint="name an earlier one with --run, if that is meant" if wanted is None else _HINT,
                )
        elif _is_elsewhere(lost := await unmarked(run, fleet, summary.run_id, told), wanted):
            continue  # nothing here stands on it
        elif told.takes_back is not None:
            taken_back[told.takes_back] = summary.run_id
        else:
            _require(summary.run_id, wanted, finalised, lost)
            return summary, told
    raise Refused("no run has committed", hint=_HINT)


def _is_elsewhere(lost: Unmarked, wanted: str | None) -> bool:
    """Return whether a committed run was none of these databases', and is not the one that was asked for.

    Raises:
        Refused: a database cannot be asked.
    """
    if lost.is_elsewhere and wanted != lost.run_id:
        return True
    if lost.silent:
        raise lost.unheard(lost.silent, hint="roll back when it can be reached")
    return False


def _require(run_id: str, wanted: str | None, finalised: Mapping[str, str], lost: Unmarked) -> None:
    """Raise why the last run that committed is not to be taken back, if it is not."""
    if wanted not in {None, run_id}:
        raise Refused(f"the run {run_id} committed after {wanted}", hint="take it back first")
    if run_id in finalised:
        raise Refused(
            f"the run {run_id} was finalised by {finalised[run_id]}: what it held back is done",
            hint="deploy a release that goes forward from here",
        )
    if (refusal := lost.refusal()) is not None:
        raise refusal


async def taken_back_by(journal: Journal, deploy: str, run_id: str) -> str | None:
    """Return the run that has taken a committed one back since, or None. Reads only.

    Raises:
        JournalError: the journal cannot be asked.
    """
    for summary in await journal.runs(deploy, limit=LOOK_BACK):
        if summary.run_id == run_id:
            return None
        if summary.outcome == RunOutcome.COMMITTED:
            told = Told.of(records_of(deploy, await journal.records(summary.run_id)))
            if told.takes_back == run_id:
                return summary.run_id
    return None


def give_back(run: Run, taken: RunSummary, told: Told, *, discards: bool) -> None:
    """Note on each target what is to be taken back there.

    Raises:
        Refused: the run moved a database that is not in the plan, or nobody knows what it moved.
    """
    if told.is_adopted:
        raise Refused(
            f"the run {taken.run_id} was finished without its journal: nobody knows what it moved",
            hint="take it back by hand, with manage.py migrate, or deploy a release that goes forward from here",
        )
    run.takes_back = taken.run_id
    moved = {name: held for name, held in told.held.items() if held.steps}
    if missing := moved.keys() - {item.name for item in run.targets}:
        raise Refused(
            f"the run {taken.run_id} moved {', '.join(sorted(missing))}, not in this plan",
            hint="run this with the plan as it was",
        )
    for item in run.targets:
        held = moved.get(item.name)
        item.back = Back(taken.run_id, held.steps if held else (), held.received if held else item.received, discards)
