"""Runs that have ended, as their journal tells."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Final

from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.errors import Refused, RunIdTaken
from smooth_orchestrator.events import EventName
from smooth_orchestrator.journal import LOOK_BACK, Journal, JournalDamaged, Record, RecordKind, RunSummary, understood
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.page.account import Account
from smooth_orchestrator.recovery import unsettled
from smooth_orchestrator.report import HALTED, Report, RunError, RunOutcome
from smooth_orchestrator.reversal import taken_back_by
from smooth_orchestrator.session import Session, journal_of
from smooth_orchestrator.timeline import Timeline, timeline_of
from smooth_orchestrator.told import Told, records_of
from smooth_orchestrator.whose import unmarked

__all__ = [
    "HALTED_ERROR",
    "account",
    "committed_by",
    "known_runs",
    "report",
    "runs",
    "unsettled_reports",
    "unsettled_runs",
]

_HALTED_HINT: Final = "deploy with another run id to go on, or smooth-orchestrate rollback PLAN to take it back"
HALTED_ERROR: Final = RunError(HALTED, "it ended before its last phase: what had committed stays", hint=_HALTED_HINT)
"""What is said of a run that was settled otherwise than it was meant to end."""

_NOT_ASKED_HINT: Final = "smooth-orchestrate status PLAN tells, once it can be reached, what is pending there"
_AGAIN: Final = "its databases are old again: deploy with another run id to make them new"


async def runs(file: PlanFile) -> tuple[RunSummary, ...]:
    """Return the deploy's runs, newest first."""
    async with journal_of(file, makes_file=False) as journal:
        return await journal.runs(file.deploy.name)


async def known_runs(file: PlanFile, run_ids: Iterable[str]) -> frozenset[str]:
    """Return which of these the deploy's journal tells of, however long ago they were."""
    async with journal_of(file, makes_file=False) as journal:
        return frozenset([run_id for run_id in run_ids if records_of(file.deploy.name, await journal.records(run_id))])


async def unsettled_runs(file: PlanFile) -> dict[str, Told]:
    """Return what the journal tells of the deploy's runs that are still to be settled, newest first."""
    deploy = file.deploy.name
    async with journal_of(file, makes_file=False) as journal:
        ids = [each.run_id for each in await unsettled(deploy, journal)]
        return {run_id: Told.of(records_of(deploy, await journal.records(run_id))) for run_id in ids}


async def unsettled_reports(file: PlanFile, run_ids: Iterable[str]) -> dict[str, Report]:
    """Return how those of these runs ended that have ended so far, by their run ids, in the order given."""
    async with journal_of(file, makes_file=False) as journal:
        records = {run_id: records_of(file.deploy.name, await journal.records(run_id)) for run_id in run_ids}
    ended = {
        run_id: each for run_id, each in records.items() if any(one.kind is RecordKind.RUN_FINISHED for one in each)
    }
    return {run_id: _report_in(_end_of(each)) for run_id, each in ended.items()}


async def report(file: PlanFile, *, run_id: str | None) -> Report:
    """Return one run's report as it was written, and what became of it since; the newest one's without a run id.

    Raises:
        Refused: there is no such run, or it has not ended.
    """
    async with journal_of(file, makes_file=False) as journal:
        return await _told(file, journal, _end_of(await _finished(file, journal, run_id)))


async def account(file: PlanFile, *, run_id: str | None) -> Account:
    """Return all that the journal tells of a run, as `report` chooses it.

    Raises:
        Refused: there is no such run, or it has not ended.
    """
    async with journal_of(file, makes_file=False) as journal:
        records = await _finished(file, journal, run_id)
        end = _end_of(records)
        told = await _told(file, journal, end)
        begun = [record.data for record in records if record.kind is RecordKind.RUN_STARTED]
        bakes = timedelta(milliseconds=file.finalise.bake_time)
        return Account(
            report=told,
            timeline=_timeline_in(end) or timeline_of(records),
            digest=str(begun[-1]["digest"]) if begun and "digest" in begun[-1] else None,
            due_at=end.at + bakes if told.outcome is RunOutcome.COMMITTED else None,
        )


async def _finished(file: PlanFile, journal: Journal, run_id: str | None) -> list[Record]:
    """Return the records of a run that has ended; of the newest such one without a run id."""
    if run_id is None:
        known = await journal.runs(file.deploy.name)
        run_id = next((each.run_id for each in known if each.finished_at), None)
        if run_id is not None and not known[0].finished_at:
            _tell_newer(known[0])
    records = records_of(file.deploy.name, await journal.records(run_id)) if run_id else []
    if any(record.kind is RecordKind.RUN_FINISHED for record in records):
        return records
    message = f"the journal holds no finished run {run_id!r}" if run_id else "the journal holds no finished run"
    raise Refused(message, hint="smooth-orchestrate runs PLAN lists them")


def _tell_newer(run: RunSummary) -> None:
    """Say that there is a newer run than the last one that has ended, lest that be taken for it."""
    message = f"the {run.command} {run.run_id} is newer, and has not ended: status tells whether it was cut off"
    get_logger().warning(EventName.LOG_MESSAGE, logger="report", message=message)


def _end_of(records: Sequence[Record]) -> Record:
    return next(record for record in reversed(records) if record.kind is RecordKind.RUN_FINISHED)


def _timeline_in(record: Record) -> Timeline | None:
    """Return the timeline that a run has written with its report, if it has and this program knows how to read it."""
    with suppress(JournalDamaged), understood(record.place):
        return Timeline.from_dict(record.data["timeline"])
    return None


async def _told(file: PlanFile, journal: Journal, end: Record) -> Report:
    since = [each async for each in _since_then(journal, file.deploy.name, end.run_id)]
    return replace(_report_in(end), since=tuple(since))


async def _since_then(journal: Journal, deploy: str, run_id: str) -> AsyncIterator[tuple[str, str]]:
    """Yield the later runs that have finalised one or taken it back, each as its command and run id."""
    later = await journal.runs(deploy)
    if run_id not in {summary.run_id for summary in later}:
        later = await journal.runs(deploy, limit=LOOK_BACK)
    for summary in later:
        if summary.run_id == run_id:
            return
        if summary.outcome == RunOutcome.COMMITTED and summary.command in {"finalise", "rollback"}:
            told = Told.of(records_of(deploy, await journal.records(summary.run_id)))
            if run_id in {told.takes_back, *(told.finalises or ())}:
                yield summary.command, summary.run_id


async def committed_by(session: Session, command: str) -> Report | None:
    """Return the report of a run id by which this command has committed already; nothing is done again. Reads only.

    Raises:
        RunIdTaken: another command has committed by it, or this one on other databases, or on some that cannot be asked
            and were elsewhere then, or phases of a run that halted: a second run would hide that.
    """
    run, did = session.run, "deploy"
    run_id = run.run_id
    records = records_of(run.plan.name, await run.journal.records(run_id))
    for record in records:
        if record.kind is RecordKind.RUN_STARTED:
            did = str(record.data.get("command"))
        elif record.kind is RecordKind.RUN_FINISHED and record.data.get("outcome") == RunOutcome.COMMITTED:
            if did != command:
                raise RunIdTaken(
                    f"the run id {run_id} is that of a {did} that has committed",
                    hint=f"give this {command} a run id of its own with --run-id, or none",
                )
            await session.set_up()
            errors = await _since(session, command, Told.of(records))
            return replace(
                _report_in(record), command=command, outcome=RunOutcome.NOTHING_TO_DO, databases=(), errors=errors
            )
    if (
        records
        and records[-1].data.get("outcome") == RunOutcome.HALTED
        and not await taken_back_by(run.journal, run.plan.name, run_id)
    ):
        raise RunIdTaken(f"the run {run_id} was halted, and what it has committed stays", hint=_HALTED_HINT)
    return None


async def _since(session: Session, command: str, told: Told) -> tuple[RunError, ...]:
    """Return what has become since of what a command's committed run has moved, as far as that is not as it was.

    Raises:
        RunIdTaken: the run was one of other databases.
        Refused: it may have been.
    """
    run = session.run
    lost = await unmarked(run, session.fleet, run.run_id, told)
    if lost.others:
        raise RunIdTaken(
            f"the run id {run.run_id} is that of a {command} of other databases than {', '.join(sorted(lost.others))}",
            hint=f"give this {command} a run id of its own with --run-id, or none",
        )
    if lost.unknown:
        hint = f"try again when it can be reached, or give this {command} a run id of its own with --run-id"
        raise lost.unheard(lost.unknown, hint=hint)
    if (gone := await taken_back_by(run.journal, run.plan.name, run.run_id)) is not None:
        return (RunError("taken_back", f"the run {run.run_id} was taken back by {gone}", hint=_AGAIN),)
    errors = []
    if lost.names:
        errors.append(RunError("unmarked", f"{lost.what}; it may have been restored since", hint=_AGAIN))
    if silent := lost.silent.keys() & told.moved:
        errors.append(RunError("not_asked", f"{lost.not_asked(silent)}; the journal says so", hint=_NOT_ASKED_HINT))
    return tuple(errors)


def _report_in(record: Record) -> Report:
    with understood(record.place):
        return Report.from_dict(record.data["report"])
