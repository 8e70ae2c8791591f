"""The commands that look at every database and change nothing: `plan`, `check`, `status`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.doubts import doubts_of
from smooth_orchestrator.errors import JournalError, Mistake
from smooth_orchestrator.history import known_runs, runs, unsettled_reports, unsettled_runs
from smooth_orchestrator.journal import NoJournal, why_not_begun
from smooth_orchestrator.preflight import inspect_targets, refusals, tier_reason, unread, warnings
from smooth_orchestrator.report import Report, RunOutcome
from smooth_orchestrator.room import room_refusals
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.session import Session, reading, report_of
from smooth_orchestrator.signals import hearing_signals
from smooth_orchestrator.stuck import stuck_on
from smooth_orchestrator.told import Told
from smooth_orchestrator.waiting import contracts_due
from smooth_orchestrator.whose import identity_of

__all__ = ["check", "plan", "status"]


async def plan(file: PlanFile, *, run_id: str, masker: Masker) -> Report:
    """Show what would run. Connects, changes nothing."""
    return await _look(file, "plan", run_id, masker)


async def check(file: PlanFile, *, run_id: str, masker: Masker) -> Report:
    """Run the preflight alone. Changes nothing.

    Raises:
        Refused: with every finding.
    """
    return await _look(file, "check", run_id, masker)


async def status(file: PlanFile, *, run_id: str, masker: Masker) -> Report:
    """Show where every database stands. Changes nothing."""
    return await _look(file, "status", run_id, masker)


async def _look(file: PlanFile, command: str, run_id: str, masker: Masker) -> Report:
    async with hearing_signals(), reading(file, masker) as prepared:
        session = prepared.session(run_id, NoJournal())
        await session.look()
        run = session.run
        await inspect_targets(run, session.fleet)
        # Also settles which tiers there is room for.
        shortages = await room_refusals(run, session.fleet)
        findings = (
            (*refusals(run), *shortages, *await _journal_refusals(file))
            if command == "check"
            else tuple(finding for item in run.targets for finding in unread(item))
        )
        outcome = RunOutcome.REFUSED if findings else RunOutcome.NOTHING_TO_DO
        details = await _standing(file, session) if command == "status" else [_plans(run, item) for item in run.targets]
        databases = tuple(replace(item.report(), extra=extra) for item, extra in zip(run.targets, details, strict=True))
        workers = tuple(await session.fleet.machines()) if command == "status" else ()
        return replace(report_of(session, command, outcome), databases=databases, errors=findings, workers=workers)


async def _journal_refusals(file: PlanFile) -> tuple[Mistake, ...]:
    """Return why the journal cannot be asked, if it cannot; or begun, where it is not there yet: a deploy does that."""
    try:
        await runs(file)
    except JournalError as error:
        return (Mistake("deploy.journal", error.message, error.hint),)
    why = why_not_begun(file.deploy.journal.get_secret_value(), directory=file.directory)
    return (Mistake("deploy.journal", why, "name a file in `deploy.journal` that this user may make"),) if why else ()


async def _standing(file: PlanFile, session: Session) -> list[dict[str, object]]:
    run = session.run
    summaries = await runs(file)
    last_run = summaries[0].run_id if summaries else None
    left = await unsettled_runs(file)
    doubts = doubts_of(run.targets)
    known = await known_runs(file, {run_id for each in doubts for run_id in each.run_ids})
    due = await contracts_due(file, session)
    reports = await unsettled_reports(file, left)
    return [
        {
            "pending": _pending(item),
            "contract_due": due.get(item.name, []),
            "last_run": last_run,
            "unsettled": _here(run, item, left),
            "stuck": stuck_on(item.name, item.found.left if item.found else None, _of(reports, _here(run, item, left))),
            **each.to_dict(known),
        }
        for item, each in zip(run.targets, doubts, strict=True)
    ]


def _here(run: Run, item: TargetRun, left: Mapping[str, Told]) -> list[str]:
    """Return which of the runs to be settled are none of another environment, where the target is another one."""
    return [run_id for run_id, told in left.items() if not told.was_another(item.name, identity_of(run, item))]


def _of(reports: Mapping[str, Report], run_ids: Iterable[str]) -> dict[str, Report]:
    return {run_id: reports[run_id] for run_id in run_ids if run_id in reports}


def _pending(item: TargetRun) -> list[str] | None:
    if unread(item):
        return None
    return [entry.migration for entry in item.found.pending] if item.found else []


def _plans(run: Run, item: TargetRun) -> dict[str, object]:
    pending = item.found.pending if item.found else ()
    is_unread = bool(unread(item))
    migrations = [
        {
            "migration": entry.migration,
            "expand": list(entry.operations if entry.expand is None else entry.expand),
            "contract": list(entry.contract),
            "reversible": not entry.irreversible,
            "locks": list(entry.locks),
        }
        for entry in pending
    ]
    return {
        "tier_reason": None if is_unread else tier_reason(item),
        "migrations": None if is_unread else migrations,
        "warnings": [*warnings(run, item)],
    }
