"""What every command works with: the plan's meaning, its workers, its journal, and the report in the end."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from smooth_orchestrator import plan as planning
from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Journal, RecordKind, open_journal
from smooth_orchestrator.report import Report, RunError, RunOutcome
from smooth_orchestrator.run import Run
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import LocalTransport

__all__ = ["Ready", "Session", "finish", "journal_of", "ready", "report_of"]

# How long one call waits for a journal's server at the most.
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Session:
    """A run and its workers.

    Args:
        run: the run.
        fleet: its workers.
        started_at: when its command began, in UTC.
    """

    run: Run
    fleet: Fleet
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan that is known to be valid, and the workers that said so.

    Args:
        plan: what it means.
        fleet: its workers.
        started_at: when the command began, in UTC.
    """

    plan: planning.Plan
    fleet: Fleet
    started_at: datetime

    def session(self, run_id: str, journal: Journal) -> Session:
        """Return a session of a new run."""
        return Session(Run(self.plan, run_id, journal), self.fleet, self.started_at)


def journal_of(file: PlanFile, *, makes_file: bool = True) -> AbstractAsyncContextManager[Journal]:
    """Open the journal that a plan names."""
    url, patience_s = file.deploy.journal.get_secret_value(), min(_PATIENCE_S, file.deploy.settle_timeout / 1000)
    return open_journal(url, directory=file.directory, makes_file=makes_file, patience_s=patience_s)


@asynccontextmanager
async def ready(file: PlanFile, masker: Masker) -> AsyncIterator[Ready]:
    """Start the workers of a plan and learn from them what it means.

    Args:
        file: the plan.
        masker: learns the secrets that projects tell.

    Raises:
        PlanInvalid: it contradicts the projects' settings.
        WorkerError: a worker cannot be started.
    """
    started_at = datetime.now(UTC)
    async with Fleet(LocalTransport(), masker) as fleet:
        facts = await fleet.ask(planning.projects_of(file))
        resolved = planning.resolve(file, facts)
        await fleet.assign(resolved)
        yield Ready(resolved, fleet, started_at)


async def finish(run: Run, finished: Report, masker: Masker) -> Report:
    """Mask the report that ends a run, and write it to the journal."""
    finished = finished.masked(masker)
    data = {"outcome": str(finished.outcome), "exit_code": finished.exit_code, "report": finished.to_dict()}
    await run.note(RecordKind.RUN_FINISHED, data=data)
    return finished


def report_of(session: Session, command: str, outcome: RunOutcome) -> Report:
    """Return what a run has to say now."""
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
        settle_with=tuple(f"--{decision}" for decision in run.settled_by if outcome is RunOutcome.NEEDS_OPERATOR),
    )
