"""What every command works with: the plan's meaning, its workers, its journal, and the report in the end."""

import shlex
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from smooth_orchestrator import plan as planning
from smooth_orchestrator.config import PlanFile, Transport
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.glances import glance_at_all
from smooth_orchestrator.journal import Journal, RecordKind, open_journal
from smooth_orchestrator.logs import hearing
from smooth_orchestrator.reach import as_reached
from smooth_orchestrator.report import ACCEPT, Report, RunError, RunOutcome
from smooth_orchestrator.run import Run
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import LocalTransport, WorkerTransport
from smooth_orchestrator.watching import Timekeeper

__all__ = ["Ready", "Session", "finish", "journal_of", "reading", "ready", "report_of"]

Adapt = Callable[[planning.Plan], planning.Plan]

# How long one call waits for a journal's server at the most.
_PATIENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Ready:
    """A plan that is known to be valid, and the workers that said so.

    Args:
        file: the plan as it is written.
        plan: what it means.
        fleet: its workers.
        started_at: when the command began, in UTC.
        adapt: makes of a plan's meaning what a command does with it.
        watcher: hears when what happens.
    """

    file: PlanFile
    plan: planning.Plan
    fleet: Fleet
    started_at: datetime
    adapt: Adapt
    watcher: Timekeeper

    def session(self, run_id: str, journal: Journal) -> "Session":
        """Return a session of a new run."""
        run = Run(self.plan, run_id, journal, watcher=self.watcher)
        return Session(run, self.fleet, self.started_at, self)


@dataclass(frozen=True, slots=True)
class Session:
    """A run and its workers.

    Args:
        run: the run.
        fleet: its workers.
        started_at: when its command began, in UTC.
        opened: the plan and the workers, as they were when it began.
    """

    run: Run
    fleet: Fleet
    started_at: datetime
    opened: Ready

    async def look(self) -> None:
        """Look at the databases while the apps are loaded, and wait until the workers obey. Reads only.

        Raises:
            PlanInvalid: the plan contradicts what an app has made of a project's settings.
            WorkerError: a project's Django cannot be set up.
        """
        await glance_at_all(self.run, self.fleet)
        await self.set_up()

    async def set_up(self) -> None:
        """Wait until the workers obey; the run takes another plan where an app has changed a project's settings.

        To be called before anything is asked of a worker. Idempotent. Raises as `look` does.
        """
        told = self.fleet.facts
        if (facts := await self.fleet.set_up()) != told:
            self.run.replan(await _understood(self.opened.file, facts, self.opened.adapt))


def journal_of(file: PlanFile, *, makes_file: bool = True) -> AbstractAsyncContextManager[Journal]:
    """Open the journal that a plan names."""
    url, patience_s = file.deploy.journal.get_secret_value(), min(_PATIENCE_S, file.deploy.settle_timeout / 1000)
    return open_journal(url, directory=file.directory, makes_file=makes_file, patience_s=patience_s)


async def _understood(file: PlanFile, facts: Mapping[str, planning.ProjectFacts], adapt: Adapt) -> planning.Plan:
    return await as_reached(adapt(planning.resolve(file, facts)))


@asynccontextmanager
async def _transport_of(file: PlanFile) -> AsyncIterator[WorkerTransport]:
    """Open what workers are reached by.

    Raises:
        WorkerError: a fleet's queue cannot be reached.
    """
    if file.fleet.transport is Transport.LOCAL:
        yield LocalTransport()
        return
    from smooth_orchestrator.remote.queue import place_of  # noqa: PLC0415 - Procrastinate, for a fleet alone
    from smooth_orchestrator.remote.transport import QueueTransport  # noqa: PLC0415 - as above

    async with QueueTransport(place_of(file)).open() as transport:
        yield transport


@asynccontextmanager
async def reading(file: PlanFile, masker: Masker, *, adapt: Adapt = lambda plan: plan) -> AsyncIterator[Ready]:
    """Start the workers of a plan and learn from the projects' settings what it means, while the apps are loaded.

    Args:
        file: the plan.
        masker: learns the secrets that projects tell.
        adapt: makes of the plan's meaning what a command does with it.

    Raises:
        PlanInvalid: it contradicts the projects' settings.
        WorkerError: a worker cannot be started.
    """
    started_at = datetime.now(UTC)
    with hearing(watcher := Timekeeper()):
        async with _transport_of(file) as transport, Fleet(transport, masker) as fleet:
            facts = await fleet.ask(planning.projects_of(file))
            plan = await _understood(file, facts, adapt)
            fleet.spare(plan.servers)
            yield Ready(file, plan, fleet, started_at, adapt, watcher)


@asynccontextmanager
async def ready(file: PlanFile, masker: Masker, *, adapt: Adapt = lambda plan: plan) -> AsyncIterator[Ready]:
    """Start the workers of a plan, wait until they obey, and learn from them what it means. As `reading` otherwise."""
    async with reading(file, masker, adapt=adapt) as opened:
        facts = await opened.fleet.set_up()
        yield replace(opened, plan=await _understood(file, facts, adapt))


async def finish(run: Run, finished: Report, masker: Masker) -> Report:
    """Mask the report that ends a run, and write it to the journal; beside it what was heard of when what happened."""
    finished = finished.masked(masker)
    data = {"outcome": str(finished.outcome), "exit_code": finished.exit_code, "report": finished.to_dict()}
    if run.watcher and (timeline := run.watcher.timeline(run.started_at)):
        data["timeline"] = masker.mask(timeline.to_dict())
    await run.note(RecordKind.RUN_FINISHED, data=data)
    return finished


def report_of(session: Session, command: str, outcome: RunOutcome) -> Report:
    """Return what a run has to say now."""
    run = session.run
    cause = RunError.of(run.cause, database=run.cause_database) if run.cause else None
    at_work = Counter(item.worker for item in run.targets if item.worker)
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
        settle_with=tuple(_asked(run)) if outcome is RunOutcome.NEEDS_OPERATOR else (),
        takes_back=run.takes_back,
        workers=tuple({"worker": name, "databases": count} for name, count in sorted(at_work.items())),
    )


def _asked(run: Run) -> Iterator[str]:
    """Yield the options of `recover` that a run waits for, where they are not told by the types of its errors."""
    yield from (f"--{decision}" for decision in run.settled_by)
    yield from (f"{ACCEPT} {shlex.quote(name)}" for name in sorted(run.unaccepted))
