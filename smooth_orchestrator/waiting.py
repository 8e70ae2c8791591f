"""When what is held back is due, and what blocks it: `status` tells it, and changes nothing."""

from datetime import datetime
from typing import Final

from smooth_migrations.protocol import ContractHalf
from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.errors import Refused
from smooth_orchestrator.finalisation import due_at, forbidden_sessions, halves_of
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.preflight import inspect_targets
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.session import Session, journal_of

__all__ = ["contracts_due"]

# Also that a role may read the queue, and not the rows that may be in the way.
_IN_THE_WAY: Final = frozenset({"cannot_finalise", "unloadable", "unreachable"})


async def contracts_due(file: PlanFile, session: Session) -> dict[str, list[dict[str, object]]]:
    """Return for each database that waits, by the runs that have held something back, when and what blocks it.

    The gate of `finalise` is the user's program, and is not run. Reads only.

    Args:
        file: the plan.
        session: of a run whose targets were looked at.

    Raises:
        JournalError: the journal cannot be asked.
    """
    looked = session.run
    halves = halves_of(looked.targets)
    if not halves:
        return {}
    async with journal_of(file, makes_file=False) as journal:
        run = Run(looked.plan, looked.run_id, journal)
        run.finalises = (*halves,)
        await inspect_targets(run, session.fleet)
        moments = {held: await _due(run, session.fleet, held, each) for held, each in halves.items()}
    connected = forbidden_sessions(run)
    return {
        item.name: [
            _told(held, moments[held], [*_found(item), *(str(each) for each in connected)])
            for held in halves_of([known])
        ]
        for known, item in zip(looked.targets, run.targets, strict=True)
    }


async def _due(run: Run, fleet: Fleet, run_id: str, halves: list[ContractHalf]) -> datetime | str:
    try:
        return await due_at(run, fleet, run_id, halves)
    except Refused as refused:
        return "; ".join([refused.message, *(str(finding) for finding in refused.findings)])


def _found(item: TargetRun) -> list[str]:
    if item.error is not None:
        return [item.error.message]
    return [each.message for each in (item.found.findings if item.found else ()) if each.code in _IN_THE_WAY]


def _told(run_id: str, moment: datetime | str, blocked_by: list[str]) -> dict[str, object]:
    if isinstance(moment, str):
        return {"run_id": run_id, "due_at": None, "blocked_by": [moment, *blocked_by]}
    return {"run_id": run_id, "due_at": moment.isoformat(), "blocked_by": blocked_by}
