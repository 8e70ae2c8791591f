"""The commands, from a plan's shape to a report."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator import plan as planning
from smooth_orchestrator.config import CommitUnit, OnFailure, PlanFile
from smooth_orchestrator.decision import commit_everywhere, decide
from smooth_orchestrator.errors import JournalError, Mistake, Refused
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import (
    Fenced,
    Journal,
    JournalUnsureError,
    NoJournal,
    Record,
    RecordKind,
    RunSummary,
    open_journal,
)
from smooth_orchestrator.lease import holding_lease
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.phases import run_phase
from smooth_orchestrator.preflight import inspect_targets, refusals, tier_reason, unread, warnings
from smooth_orchestrator.preparation import prepare_held
from smooth_orchestrator.recovery import settle_earlier
from smooth_orchestrator.report import Report, RunError, RunOutcome
from smooth_orchestrator.room import room_refusals
from smooth_orchestrator.run import Run, Stage, TargetRun
from smooth_orchestrator.saga import take_back
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.signals import Signals, hearing_signals
from smooth_orchestrator.transport import LocalTransport

__all__ = ["check", "deploy", "plan", "recover", "report", "runs", "status"]

# What an error is called that found another run at work: a worker's on its database, ours on the journal.
_LOCKED = frozenset({"LeaseHeld", Fenced.code})


@dataclass(frozen=True, slots=True)
class _Session:
    run: Run
    fleet: Fleet
    started_at: datetime


@dataclass(frozen=True, slots=True)
class _Ready:
    plan: planning.Plan
    fleet: Fleet
    started_at: datetime

    def session(self, run_id: str, journal: Journal) -> _Session:
        return _Session(Run(self.plan, run_id, journal), self.fleet, self.started_at)


async def deploy(file: PlanFile, *, run_id: str, masker: Masker) -> Report:
    """Move every database of the plan forwards together, or leave every one as it was.

    Raises:
        SmoothError: it was refused, or could not begin; no database was touched.
    """
    # The journal may be a server: nothing is connected to before the settings, too, have shown that the plan is valid.
    async with hearing_signals() as signals, _ready(file, masker) as ready, _journal(file) as journal:
        earlier = _of(file.deploy.name, await journal.records(run_id))
        if any(item.kind is RecordKind.RUN_FINISHED and item.data["outcome"] == "committed" for item in earlier):
            stored = [item for item in earlier if item.kind is RecordKind.RUN_FINISHED][-1]
            return replace(Report.from_dict(stored.data["report"]), outcome=RunOutcome.NOTHING_TO_DO, databases=())
        session = ready.session(run_id, journal)
        async with holding_lease(session.run):
            unsettled = await _recover(session, masker)
            if unsettled is not None and unsettled.outcome is RunOutcome.NEEDS_OPERATOR:
                return replace(unsettled, command="deploy")
            return await _deploy(session, signals, masker)


async def recover(file: PlanFile, *, run_id: str, masker: Masker, forced: Decision | None = None) -> Report:
    """Settle what interrupted runs have left: commit it or take it back, by the journal's decision.

    Args:
        file: the plan.
        run_id: of this command.
        masker: learns the secrets that projects tell.
        forced: an operator's decision, where only prepared transactions tell of a run.

    Raises:
        SmoothError: somebody else is at work, or the journal cannot be asked.
    """
    async with hearing_signals(), _ready(file, masker) as ready, _journal(file) as journal:
        session = ready.session(run_id, journal)
        async with holding_lease(session.run):
            return await _recover(session, masker, forced) or _report(session, "recover", RunOutcome.NOTHING_TO_DO)


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


async def runs(file: PlanFile) -> tuple[RunSummary, ...]:
    """Return the deploy's runs, newest first."""
    async with _journal(file, makes_file=False) as journal:
        return await journal.runs(file.deploy.name)


async def report(file: PlanFile, *, run_id: str | None) -> Report:
    """Return one run's report as it was written; the newest finished one's without a run id.

    Raises:
        Refused: there is no such run, or it has not ended.
    """
    async with _journal(file, makes_file=False) as journal:
        if run_id is None:
            finished = [item.run_id for item in await journal.runs(file.deploy.name) if item.finished_at]
            run_id = finished[0] if finished else None
        records = _of(file.deploy.name, await journal.records(run_id)) if run_id else ()
        for record in reversed(records):
            if record.kind is RecordKind.RUN_FINISHED:
                return Report.from_dict(record.data["report"])
    message = f"the journal holds no finished run {run_id!r}" if run_id else "the journal holds no finished run"
    raise Refused(message, hint="smooth-orchestrate runs PLAN lists them")


def _of(deploy: str, records: Iterable[Record]) -> list[Record]:
    """Return one deploy's records of a run id, which the caller may have given to another deploy as well."""
    found, is_ours = [], False
    for record in records:
        if record.kind is RecordKind.RUN_STARTED:
            is_ours = record.data["deploy"] == deploy
        if is_ours:
            found.append(record)
    return found


def _journal(file: PlanFile, *, makes_file: bool = True) -> AbstractAsyncContextManager[Journal]:
    return open_journal(file.deploy.journal.get_secret_value(), directory=file.directory, makes_file=makes_file)


@asynccontextmanager
async def _ready(file: PlanFile, masker: Masker) -> AsyncIterator[_Ready]:
    started_at = datetime.now(UTC)
    async with Fleet(LocalTransport(), masker) as fleet:
        facts = await fleet.ask(planning.projects_of(file))
        resolved = planning.resolve(file, facts)
        await fleet.assign(resolved)
        yield _Ready(resolved, fleet, started_at)


async def _deploy(session: _Session, signals: Signals, masker: Masker) -> Report:
    run, fleet, log = session.run, session.fleet, get_logger()
    names = [item.name for item in run.targets]
    log.info(EventName.DEPLOY_STARTED, command="deploy", databases=names, digest=run.plan.digest)
    data = {"deploy": run.plan.name, "command": "deploy", "digest": run.plan.digest, "targets": names}
    await run.journal.append(run.run_id, RecordKind.RUN_STARTED, data=data)
    try:
        await _preflight(run, fleet)
    except Refused as refused:
        finished = replace(_report(session, "deploy", RunOutcome.REFUSED), errors=refused.findings)
        return await _finish(run, finished, masker)
    if not any(item.has_work for item in run.targets):
        return await _finish(run, _report(session, "deploy", RunOutcome.NOTHING_TO_DO), masker)
    signals.end_run(run)
    await _forward(run, fleet)
    outcome = await _outcome(run, fleet)
    event = {
        RunOutcome.COMMITTED: EventName.DEPLOY_COMMITTED,
        RunOutcome.ROLLED_BACK: EventName.DEPLOY_ROLLED_BACK,
        RunOutcome.LOCKED: EventName.DEPLOY_ROLLED_BACK,
    }.get(outcome, EventName.DEPLOY_NEEDS_OPERATOR)
    log.info(event, outcome=str(outcome), duration_ms=run.duration_ms, databases=names, error=run.cause)
    return await _finish(run, _report(session, "deploy", outcome), masker)


async def _recover(session: _Session, masker: Masker, forced: Decision | None = None) -> Report | None:
    """Settle earlier runs, and report the one that could not be settled, else the newest; None where there is none."""
    reports: list[Report] = []
    for settled in await settle_earlier(session.run.plan, session.run.journal, session.fleet, forced=forced):
        earlier = _Session(settled.run, session.fleet, settled.summary.started_at)
        finished = _report(earlier, settled.summary.command, settled.outcome)
        if settled.outcome is RunOutcome.ROLLED_BACK:
            finished = replace(finished, error=RunError("interrupted", "it was cut off before its decision"))
        reports.append(replace(await _finish(settled.run, finished, masker), command="recover"))
    return next(
        (each for each in reports if each.outcome is RunOutcome.NEEDS_OPERATOR), reports[-1] if reports else None
    )


async def _preflight(run: Run, fleet: Fleet) -> None:
    await inspect_targets(run, fleet)
    findings = (*refusals(run), *await room_refusals(run, fleet))
    if findings:
        described = [
            {"code": "refused", "message": item.message, "database": item.place, "hint": item.hint} for item in findings
        ]
        get_logger().error(EventName.PREFLIGHT_FAILED, findings=described)
        raise Refused("the preflight found what refuses this deploy", findings=findings)
    get_logger().info(
        EventName.PREFLIGHT_PASSED, duration_ms=run.duration_ms, databases=[item.name for item in run.targets]
    )


async def _forward(run: Run, fleet: Fleet) -> None:
    by_phase = run.plan.commit is CommitUnit.PHASE
    for phase in run.plan.phases:
        if run.stopping.is_set():
            return
        await run_phase(run, fleet, phase)
        if by_phase and not run.stopping.is_set():
            await _decide_and_commit(run, fleet, scope=phase.name)
            run.decided = bool(run.in_stage(Stage.IN_DOUBT))
            if phase is not run.plan.phases[-1]:
                run.obey_interruption()
    if not by_phase and not run.stopping.is_set():
        await _decide_and_commit(run, fleet, scope="deploy")


async def _decide_and_commit(run: Run, fleet: Fleet, *, scope: str) -> None:
    await prepare_held(run, fleet)
    if run.stopping.is_set():
        return
    # From here on a signal changes nothing: the row may stand before its answer has come.
    run.decided = True
    try:
        await decide(run, Decision.COMMIT, scope=scope)
    except JournalError as error:
        if isinstance(error, JournalUnsureError):
            raise
        run.decided = False
        run.fail(ErrorInfo(error.code, error.message, hint=error.hint))
        return
    await commit_everywhere(run, fleet, run.in_stage(Stage.HELD))


async def _outcome(run: Run, fleet: Fleet) -> RunOutcome:
    if not run.stopping.is_set():
        return RunOutcome.COMMITTED
    if run.in_stage(Stage.IN_DOUBT):
        return RunOutcome.NEEDS_OPERATOR
    try:
        await decide(run, Decision.ABORT, scope="deploy")
    except JournalError as error:
        # No decision means abort as well.
        run.fail(ErrorInfo(error.code, error.message, hint=error.hint))
    halt = run.plan.on_failure is OnFailure.HALT
    await take_back(run, fleet, committed=not halt)
    stays = run.in_stage(Stage.IN_DOUBT, Stage.COMMITTED)
    if stays:
        return RunOutcome.NEEDS_OPERATOR
    return RunOutcome.LOCKED if run.cause and run.cause.type in _LOCKED else RunOutcome.ROLLED_BACK


async def _finish(run: Run, finished: Report, masker: Masker) -> Report:
    finished = finished.masked(masker)
    data = {"outcome": str(finished.outcome), "exit_code": finished.exit_code, "report": finished.to_dict()}
    await run.note(RecordKind.RUN_FINISHED, data=data)
    return finished


def _report(session: _Session, command: str, outcome: RunOutcome) -> Report:
    run = session.run
    cause = RunError.of(run.cause, database=run.cause_database) if run.cause else None
    return Report(
        command=command,
        deploy=run.plan.name,
        run_id=run.run_id,
        outcome=outcome,
        started_at=session.started_at,
        duration_ms=run.duration_ms,
        databases=tuple(item.report() for item in run.targets),
        error=cause,
        errors=tuple(run.further),
    )


async def _look(file: PlanFile, command: str, run_id: str, masker: Masker) -> Report:
    async with hearing_signals(), _ready(file, masker) as ready:
        session = ready.session(run_id, NoJournal())
        run = session.run
        await inspect_targets(run, session.fleet)
        # Also settles which tiers there is room for.
        shortages = await room_refusals(run, session.fleet)
        findings: tuple[Mistake, ...] = (
            (*refusals(run), *shortages)
            if command == "check"
            else tuple(finding for item in run.targets for finding in unread(item))
        )
        outcome = RunOutcome.REFUSED if findings else RunOutcome.NOTHING_TO_DO
        summaries = await runs(file) if command == "status" else ()
        last_run = summaries[0].run_id if summaries else None
        databases = tuple(replace(item.report(), extra=_details(run, item, command, last_run)) for item in run.targets)
        return replace(_report(session, command, outcome), databases=databases, errors=findings)


def _details(run: Run, item: TargetRun, command: str, last_run: str | None) -> dict[str, object]:
    pending = item.found.pending if item.found else ()
    is_unread = bool(unread(item))
    if command == "status":
        names = None if is_unread else [entry.migration for entry in pending]
        return {"pending": names, "last_run": last_run, "in_doubt": [*(item.found.in_doubt if item.found else ())]}
    migrations = [
        {
            "migration": entry.migration,
            "expand": list(entry.operations),
            "contract": [],
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
