"""The commands, from a plan's shape to a report."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator import __version__
from smooth_orchestrator.config import CommitUnit, OnFailure, PlanFile
from smooth_orchestrator.decision import commit_everywhere, decide, leave_in_doubt, write_decision_down
from smooth_orchestrator.earlier_use import remove_earlier_marks
from smooth_orchestrator.errors import JournalError, Refused
from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.finalisation import contracting, due_at, look_for_halves, pass_guards
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.history import HALTED_ERROR, committed_by, report, runs
from smooth_orchestrator.journal import JournalUnsureError, RecordKind
from smooth_orchestrator.last_resource import commit_last_resource, last_resource
from smooth_orchestrator.lease import LOCKED, holding_lease
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.looks import check, plan, status
from smooth_orchestrator.phases import run_ahead, run_phase
from smooth_orchestrator.plan import Plan
from smooth_orchestrator.preflight import pass_preflight
from smooth_orchestrator.preparation import prepare_held
from smooth_orchestrator.recovery import of_another_environment, settle_earlier, unsettled
from smooth_orchestrator.rehearsal import outcome_of, rehearse_everywhere, rehearsed, with_lock_timeout
from smooth_orchestrator.report import WOULD_DISCARD, Report, RunError, RunOutcome
from smooth_orchestrator.reversal import backwards, choose, give_back
from smooth_orchestrator.run import Run, Stage
from smooth_orchestrator.runbooks import runbook_of
from smooth_orchestrator.saga import take_back
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.session import Session, finish, journal_of, reading, ready, report_of
from smooth_orchestrator.settled import Said
from smooth_orchestrator.signals import Signals, hearing_signals
from smooth_orchestrator.whose import identity_of

__all__ = ["check", "deploy", "finalise", "plan", "recover", "rehearse", "report", "rollback", "runs", "status"]


async def deploy(file: PlanFile, *, run_id: str, masker: Masker, replays: bool = True) -> Report:
    """Move every database of the plan forwards together, or leave every one as it was.

    Args:
        file: the plan.
        run_id: of the deploy.
        masker: learns the secrets that projects tell.
        replays: whether what is known to be done to one database is done to others in its state without being worked
            out again.

    Raises:
        SmoothError: it was refused, or could not begin; no database was touched.
    """

    async def work(session: Session, signals: Signals) -> Report:
        session.run.replays = replays
        return await _move(session, "deploy", signals, masker)

    return await _in_turn(file, "deploy", work, run_id=run_id, masker=masker)


async def rollback(
    file: PlanFile, *, run_id: str, masker: Masker, wanted: str | None = None, discards: bool = False
) -> Report:
    """Take a committed run back on every database, all or none.

    Args:
        file: the plan.
        run_id: of the rollback, which is a run itself.
        masker: learns the secrets that projects tell.
        wanted: the run to be taken back; the last one that committed unless given.
        discards: whether rows and values may be lost that were written since.

    Raises:
        SmoothError: it was refused, or could not begin; no database was touched.
    """

    async def work(session: Session, signals: Signals) -> Report:
        run = session.run
        taken, told = await choose(run, session.fleet, wanted)
        give_back(run, taken, told, discards=discards)
        return await _move(session, "rollback", signals, masker)

    return await _in_turn(file, "rollback", work, run_id=run_id, masker=masker, planned=backwards)


async def _in_turn(
    file: PlanFile,
    command: str,
    work: Callable[[Session, Signals], Awaitable[Report]],
    *,
    run_id: str,
    masker: Masker,
    planned: Callable[[Plan], Plan] = lambda plan: plan,
) -> Report:
    """Do a command's work when it is its turn and earlier runs are settled; a run id that committed does nothing."""
    # The journal may be a server: nothing is connected to before the settings, too, have shown that the plan is valid.
    begun = reading(file, masker, adapt=planned)
    async with hearing_signals() as signals, begun as opened, journal_of(file) as journal:
        session = opened.session(run_id, journal)
        if (committed := await committed_by(session, command)) is not None:
            return committed
        async with holding_lease(session.run, session.fleet):
            await session.look()
            if (undecided := await _undecided(session, command, signals, masker)) is not None:
                return undecided
            # By another process meanwhile, or just now, where an earlier attempt at this run was settled.
            if (committed := await committed_by(session, command)) is not None:
                return committed
            return await work(session, signals)


async def recover(
    file: PlanFile,
    *,
    run_id: str,
    masker: Masker,
    forced: Decision | None = None,
    discards: bool = False,
    compares: bool = True,
    accepted: Collection[str] = (),
) -> Report:
    """Settle what interrupted runs have left: commit it or take it back, by the journal's decision.

    Args:
        file: the plan.
        run_id: of this command.
        masker: learns the secrets that projects tell.
        forced: an operator's decision, where only prepared transactions tell of a run.
        discards: whether a rollback that was decided may lose rows and values that were written since.
        compares: whether the schema of what is taken back is compared with what it was.
        accepted: databases that an operator has put right by hand.

    Raises:
        SmoothError: somebody else is at work, or the journal cannot be asked.
    """
    async with hearing_signals() as signals, ready(file, masker) as opened, journal_of(file) as journal:
        session = opened.session(run_id, journal)
        async with holding_lease(session.run, session.fleet):
            settled = await _recover(
                session, signals, masker, Said(forced, discards, compares, frozenset(accepted), is_asked=True)
            )
            if settled is None:
                return report_of(session, "recover", RunOutcome.NOTHING_TO_DO)
            return replace(settled, command="recover", errors=(*settled.errors, *session.run.further))


async def finalise(file: PlanFile, *, run_id: str, masker: Masker) -> Report:
    """Do what earlier deploys have held back, on every database or on none, once it is due.

    Raises:
        SmoothError: it was refused, or could not begin; no database was touched.
    """

    async def work(session: Session, signals: Signals) -> Report:
        return await _contract(session, signals, masker)

    return await _in_turn(file, "finalise", work, run_id=run_id, masker=masker, planned=contracting)


async def rehearse(file: PlanFile, *, run_id: str, masker: Masker, lock_timeout_ms: int) -> Report:
    """Run the real migrations on every database, each in a transaction that is always rolled back.

    Args:
        file: the plan.
        run_id: of the rehearsal.
        masker: learns the secrets that projects tell.
        lock_timeout_ms: how long a statement waits for one lock, instead of the plan's: others wait behind it.

    Raises:
        SmoothError: it was refused, or could not begin.
    """
    begun = ready(file, masker, adapt=lambda plan: with_lock_timeout(plan, lock_timeout_ms))
    async with hearing_signals() as signals, begun as opened, journal_of(file) as journal:
        session = opened.session(run_id, journal)
        async with holding_lease(session.run, session.fleet):
            for left in await unsettled(opened.plan.name, journal):
                if await of_another_environment(opened.plan, journal, session.fleet, left.run_id):
                    continue
                raise Refused(f"the run {left.run_id} is still to be settled", hint="smooth-orchestrate recover PLAN")
            # No rehearsal commits: what has committed by this id would be hidden by it.
            await committed_by(session, "rehearse")
            if (refused := await _begin(session, "rehearse", masker)) is not None:
                return refused
            run = session.run
            signals.end_run(run)
            await rehearse_everywhere(run, session.fleet)
            outcome = outcome_of(run)
            get_logger().info(
                EventName.REHEARSAL_FINISHED,
                outcome=str(outcome),
                duration_ms=run.duration_ms,
                databases=[item.name for item in run.targets],
                error=run.cause,
            )
            finished = report_of(session, "rehearse", outcome)
            return await finish(
                run, replace(finished, databases=tuple(rehearsed(item) for item in run.targets)), masker
            )


async def _contract(session: Session, signals: Signals, masker: Masker) -> Report:
    """Do what is due of what is held back, if nothing forbids it."""
    run, log = session.run, get_logger()
    names = [item.name for item in run.targets]
    try:
        halves = await look_for_halves(run, session.fleet)
        due = {held: await due_at(run, session.fleet, held, each) for held, each in halves.items()}
        ripe = tuple(held for held, moment in due.items() if moment <= datetime.now(UTC))
        if ripe:
            await pass_guards(run)
    except Refused as refused:
        findings = [{"code": "refused", "message": str(finding)} for finding in refused.findings]
        error = ErrorInfo(refused.code, refused.message, hint=refused.hint)
        log.error(EventName.FINALISE_REFUSED, error=error, findings=findings, databases=names)  # noqa: TRY400 - no bug
        raise
    if not ripe:
        if due:
            log.info(EventName.FINALISE_NOT_DUE, due_at=min(due.values()).isoformat(), databases=names)
        return report_of(session, "finalise", RunOutcome.NOT_DUE if due else RunOutcome.NOTHING_TO_DO)
    run.finalises = ripe
    log.info(EventName.FINALISE_STARTED, databases=names, command="finalise", digest=run.plan.digest)
    done = await _move(session, "finalise", signals, masker)
    log.info(
        EventName.FINALISE_FINISHED,
        outcome=str(done.outcome),
        duration_ms=run.duration_ms,
        databases=names,
        error=run.cause,
    )
    return done


async def _begin(session: Session, command: str, masker: Masker) -> Report | None:
    """Let a run pass the preflight, and write down that it begins; return the report of its refusal, if it is."""
    run = session.run
    names = [item.name for item in run.targets]
    digest, vendors = run.plan.digest, {item.name: item.target.vendor for item in run.targets}
    begun: dict[str, Any] = {"command": command, "databases": names, "digest": digest, "phases": run.phases}
    get_logger().info(EventName.DEPLOY_STARTED, **begun, vendors=vendors, version=__version__)
    data: dict[str, Any] = {"deploy": run.plan.name, "command": command, "digest": digest, "targets": names}
    # Whoever settles this run must know which of its decisions were about what, whatever the plan says by then.
    phases = [{"name": each.name, "databases": [target.name for target in each.targets]} for each in run.plan.phases]
    data |= {"phases": phases, "commit": str(run.plan.commit), "on_failure": str(run.plan.on_failure)}
    if run.takes_back is not None:
        data["takes_back"] = run.takes_back
    if run.finalises is not None:
        data["finalises"] = [*run.finalises]
    try:
        await pass_preflight(run, session.fleet)
        if command != "rehearse":
            # Before the run is known: what is cut off here has no mark of an earlier use to be taken for its own.
            await remove_earlier_marks(run, session.fleet)
    except Refused as refused:
        await run.journal.append(run.run_id, RecordKind.RUN_STARTED, data=data)
        finished = replace(report_of(session, command, RunOutcome.REFUSED), errors=refused.findings)
        return await finish(run, finished, masker)
    # One journal may serve several plans, and one plan several environments, whose names are the same.
    data["identities"] = {item.name: identity_of(run, item).to_dict() for item in run.targets}
    data["missing"] = [item.name for item in run.targets if item.found and item.found.is_missing]
    await run.journal.append(run.run_id, RecordKind.RUN_STARTED, data=data)
    return None


async def _undecided(session: Session, command: str, signals: Signals, masker: Masker) -> Report | None:
    """Settle earlier runs; return the report of one that needs an operator first.

    Raises:
        Refused: a rollback was asked for that names no run, and what was cut off is rolled back by now: nobody can tell
            whether the run before it is meant too.
    """
    settled = await _recover(session, signals, masker)
    if settled is None:
        return None
    if settled.outcome is RunOutcome.NEEDS_OPERATOR:
        return replace(settled, command=command)
    if command == "rollback" and settled.command == "deploy" and settled.outcome is RunOutcome.ROLLED_BACK:
        raise Refused(
            f"the deploy {settled.run_id} was cut off; it is rolled back now, and nothing else is",
            hint="roll back once more, if the run before it is to be taken back too",
        )
    return None


async def _move(session: Session, command: str, signals: Signals, masker: Masker) -> Report:
    run, fleet = session.run, session.fleet
    if (refused := await _begin(session, command, masker)) is not None:
        return refused
    if not any(item.has_work for item in run.targets):
        return await finish(run, report_of(session, command, RunOutcome.NOTHING_TO_DO), masker)
    signals.end_run(run)
    await _forward(run, fleet)
    outcome = await _outcome(run, fleet)
    event = {
        RunOutcome.COMMITTED: EventName.DEPLOY_COMMITTED,
        RunOutcome.ROLLED_BACK: EventName.DEPLOY_ROLLED_BACK,
        RunOutcome.LOCKED: EventName.DEPLOY_ROLLED_BACK,
        RunOutcome.REFUSED: EventName.DEPLOY_ROLLED_BACK,
    }.get(outcome, EventName.DEPLOY_NEEDS_OPERATOR)
    finished = report_of(session, command, outcome)
    page = {"runbook": runbook_of(finished)} if event is EventName.DEPLOY_NEEDS_OPERATOR else {}
    told = {"databases": [item.name for item in run.targets], "error": run.cause, **page}
    get_logger().info(event, outcome=str(outcome), duration_ms=run.duration_ms, **told)
    return await finish(run, finished, masker)


async def _recover(session: Session, signals: Signals, masker: Masker, said: Said | None = None) -> Report | None:
    """Settle earlier runs, and report the one that could not be settled, else the newest; None where there is none."""
    reports: list[Report] = []

    def begins() -> None:
        signals.is_settling = True

    for settled in await settle_earlier(session.run, session.fleet, begins=begins, said=said or Said()):
        earlier = replace(session, run=settled.run, started_at=settled.summary.started_at)
        finished = report_of(earlier, settled.summary.command, settled.outcome)
        if settled.outcome is RunOutcome.HALTED:
            finished = replace(finished, error=HALTED_ERROR)
        elif settled.outcome is RunOutcome.ROLLED_BACK:
            finished = replace(finished, error=RunError("interrupted", f"it was cut off {settled.cut_off}"))
        reports.append(await finish(settled.run, finished, masker))
    signals.is_settling = False
    return next(
        (each for each in reports if each.outcome is RunOutcome.NEEDS_OPERATOR), reports[-1] if reports else None
    )


async def _forward(run: Run, fleet: Fleet) -> None:
    by_phase = run.plan.commit is CommitUnit.PHASE
    if not by_phase:
        await run_ahead(run, fleet, run.targets)
    for phase in run.plan.phases:
        if run.stopping.is_set():
            return
        if by_phase:
            await run_ahead(run, fleet, run.of(phase))
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
    last = last_resource(run)
    if last is None:
        try:
            await decide(run, Decision.COMMIT, scope=scope)
        except JournalError as error:
            failure = ErrorInfo(error.code, error.message, hint=error.hint)
            if isinstance(error, JournalUnsureError):
                leave_in_doubt(run, failure)
            run.decided = False
            run.fail(failure)
            return
    elif (refusal := await commit_last_resource(run, fleet, last)) is None:
        await write_decision_down(run, Decision.COMMIT, scope=scope)
    else:
        run.decided = False
        run.fail(refusal, last.name)
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
    # What has committed is settled by whoever has the lease, and may by now be another's by the same run id.
    await take_back(run, fleet, stays=run.phases if halt or run.is_fenced else ())
    if run.is_fenced:
        # Whoever has the lease settles this run before anything else, and takes no more of it for ours.
        return RunOutcome.LOCKED
    stays = run.in_stage(Stage.IN_DOUBT, Stage.COMMITTED)
    if stays:
        if halt and not run.in_stage(Stage.IN_DOUBT):
            run.further.append(HALTED_ERROR)
        return RunOutcome.NEEDS_OPERATOR
    kind = run.cause.type if run.cause else None
    if kind == WOULD_DISCARD:
        return RunOutcome.REFUSED
    return RunOutcome.LOCKED if kind in LOCKED else RunOutcome.ROLLED_BACK
