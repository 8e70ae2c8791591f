"""The commands as coroutines, for programs that deploy from Python; the command line goes through them too.

Each takes a plan, as a path or as `load` returns it, and runs on asyncio's event loop. It configures no logging,
installs no signal handlers and prints nothing: what happens is told to `on_event`, event by event as the log shows it
(docs/reference/events.schema.json), and how it went by the `Report` that is returned.

What a user is to mend is raised as a `SmoothError`, with the exit code that the command would have: a mistake in a plan
(`PlanInvalid`), a refusal (`Refused`), another run at work (`Locked`). That a run failed and was taken back is no
error but a report's `outcome`. A task that is cancelled ends when everything is settled as after a signal: taken back
where nothing was decided, committed where it was.
"""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.config import load as _load
from smooth_orchestrator.embedding import embedded, masker_of_process
from smooth_orchestrator.errors import (
    Locked,
    Mistake,
    PlanInvalid,
    Refused,
    SmoothError,
    WorkerError,
    raised_on_purpose,
)
from smooth_orchestrator.events import Decision
from smooth_orchestrator.journal.base import RunSummary
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome
from smooth_orchestrator.run_ids import CHOSEN, new_run_id
from smooth_orchestrator.secrets import Masker, of_plan
from smooth_orchestrator.settling import told_how_to_settle

__all__ = [
    "DatabaseOutcome",
    "DatabaseReport",
    "Decision",
    "Locked",
    "Mistake",
    "OnEvent",
    "PlanFile",
    "PlanInvalid",
    "Refused",
    "Report",
    "RunError",
    "RunOutcome",
    "RunSummary",
    "SmoothError",
    "WorkerError",
    "check",
    "deploy",
    "finalise",
    "load",
    "plan",
    "recover",
    "rehearse",
    "report",
    "rollback",
    "runs",
    "status",
]

_T = TypeVar("_T")

AnyPlan = PlanFile | Path | str
OnEvent = Callable[[Mapping[str, Any]], None]
"""Takes one event, complete and without secrets, in the thread of the loop. It must not wait for anything."""

_LOCK_TIMEOUT_MS: Final = 1000


def load(path: Path | str, environ: Mapping[str, str] | None = None) -> PlanFile:
    """Read a plan and check all that can be checked without Django.

    Args:
        path: of the plan file.
        environ: where its `${NAME}` are looked up; the process's environment unless given.

    Raises:
        PlanInvalid: with every mistake, in the order of the file.
    """
    return _load(Path(path), os.environ if environ is None else environ)


async def deploy(
    plan: AnyPlan, *, run_id: str | None = None, on_event: OnEvent | None = None, replay: bool = True
) -> Report:
    """Move every database of the plan forwards together, or leave every one as it was.

    Args:
        plan: a path, or what `load` returned.
        run_id: names the run; to repeat one that has committed does nothing. A new name unless given.
        on_event: called with each event.
        replay: whether what is known to be done to one database is done to its like without being worked out again.

    Raises:
        SmoothError: it was refused, or could not begin; no database was touched.
    """
    return await _run("deploy", plan, run_id, on_event, replays=replay)


async def plan(plan: AnyPlan, *, run_id: str | None = None, on_event: OnEvent | None = None) -> Report:
    """Show what a deploy would run: `extra["migrations"]` of each database. Connects, changes nothing.

    Arguments and errors are those of `deploy`.
    """
    return await _run("plan", plan, run_id, on_event)


async def check(plan: AnyPlan, *, run_id: str | None = None, on_event: OnEvent | None = None) -> Report:
    """Look for whatever would stop a deploy; what does is the report's `errors`. Changes nothing.

    Arguments and errors are those of `deploy`.
    """
    return await _run("check", plan, run_id, on_event)


async def rehearse(
    plan: AnyPlan,
    *,
    run_id: str | None = None,
    on_event: OnEvent | None = None,
    lock_timeout_ms: int = _LOCK_TIMEOUT_MS,
) -> Report:
    """Run the migrations on every database, each in a transaction that is always rolled back.

    Args:
        plan: as for `deploy`.
        run_id: the same.
        on_event: the same.
        lock_timeout_ms: how long a statement waits for one lock, instead of the plan's: others wait behind it.

    Raises:
        SmoothError: as for `deploy`.
    """
    return await _run("rehearse", plan, run_id, on_event, lock_timeout_ms=lock_timeout_ms)


async def finalise(plan: AnyPlan, *, run_id: str | None = None, on_event: OnEvent | None = None) -> Report:
    """Do what deploys have held back, on every database or on none, when it is due.

    Arguments and errors are those of `deploy`.
    """
    return await _run("finalise", plan, run_id, on_event)


async def rollback(
    plan: AnyPlan,
    *,
    run_id: str | None = None,
    on_event: OnEvent | None = None,
    run: str | None = None,
    discard_data: bool = False,
) -> Report:
    """Take a committed run back on every database, all or none.

    Args:
        plan: as for `deploy`.
        run_id: of the rollback, which is a run itself.
        on_event: as for `deploy`.
        run: the one to be taken back; the last one that committed unless given.
        discard_data: whether rows and values may be lost that were written since.

    Raises:
        SmoothError: as for `deploy`.
    """
    return await _run("rollback", plan, run_id, on_event, wanted=run, discards=discard_data)


async def recover(
    plan: AnyPlan,
    *,
    run_id: str | None = None,
    on_event: OnEvent | None = None,
    decision: Decision | None = None,
    discard_data: bool = False,
    compare_schema: bool = True,
    accept: Collection[str] = (),
) -> Report:
    """Settle what interrupted runs have left: commit it or take it back, by the journal's decision.

    Args:
        plan: as for `deploy`.
        run_id: of this command.
        on_event: as for `deploy`.
        decision: an operator's decision, where only prepared transactions tell of a run.
        discard_data: whether a rollback that was decided may lose rows and values that were written since.
        compare_schema: whether the schema of what is taken back is compared with what it was.
        accept: databases that an operator has put right by hand.

    Raises:
        SmoothError: somebody else is at work, or the journal cannot be asked.
    """
    return await _run(
        "recover",
        plan,
        run_id,
        on_event,
        forced=decision,
        discards=discard_data,
        compares=compare_schema,
        accepted=accept,
    )


async def status(plan: AnyPlan, *, run_id: str | None = None, on_event: OnEvent | None = None) -> Report:
    """Show where every database stands: `extra["pending"]` of each, and more. Changes nothing.

    Arguments and errors are those of `deploy`.
    """
    return await _run("status", plan, run_id, on_event)


async def runs(plan: AnyPlan) -> tuple[RunSummary, ...]:
    """Return the deploy's runs, newest first.

    Raises:
        SmoothError: the plan is invalid, or the journal cannot be read.
    """
    file = _read(plan)
    masker = _masker_of(file)
    from smooth_orchestrator import runner  # noqa: PLC0415 - see `_run`

    found = await _raising(partial(runner.runs, file), masker)
    return tuple(replace(each, error=masker.mask(each.error)) for each in found)


async def report(plan: AnyPlan, *, run: str | None = None) -> Report:
    """Return one run's report as it was written.

    Args:
        plan: as for `deploy`.
        run: which; the newest finished one unless given.

    Raises:
        Refused: there is no such run, or it has not ended.
    """
    file = _read(plan)
    masker = _masker_of(file)
    from smooth_orchestrator import runner  # noqa: PLC0415 - see `_run`

    return _told(await _raising(partial(runner.report, file, run_id=run), masker), plan, masker)


async def _run(command: str, plan: AnyPlan, run_id: str | None, on_event: OnEvent | None, **given: Any) -> Report:  # noqa: ANN401 - of every command
    file, name = _read(plan), _run_id(run_id)
    masker = _masker_of(file)
    # A mistake in a plan is told without waiting for the drivers of databases to be imported.
    from smooth_orchestrator import runner  # noqa: PLC0415 - see above

    work = partial(getattr(runner, command), file, run_id=name, masker=masker, **given)
    done = partial(embedded, work, masker, on_event=on_event, bound=(name, file.deploy.name))
    return _told(await _raising(done, masker), plan, masker)


def _read(plan: AnyPlan) -> PlanFile:
    return plan if isinstance(plan, PlanFile) else load(plan)


def _run_id(run_id: str | None) -> str:
    if run_id is None:
        return new_run_id()
    if not CHOSEN.fullmatch(run_id):
        raise PlanInvalid([Mistake("run_id", "is not a run's name", "write 1 to 64 letters, digits, dots, - and _")])
    return run_id


def _masker_of(file: PlanFile) -> Masker:
    if (own := masker_of_process()) is not None:
        return own
    masker = Masker()
    for secret in of_plan(file, os.environ):
        masker.add(secret)
    return masker


def _told(result: Report, plan: AnyPlan, masker: Masker) -> Report:
    if masker_of_process() is not None:
        return result  # which the command line masks, and completes, with all else that it writes
    masked = result.masked(masker)
    return masked if isinstance(plan, PlanFile) else told_how_to_settle(masked, Path(plan))


async def _raising(work: Callable[[], Awaitable[_T]], masker: Masker) -> _T:
    """Do the work; of several errors of ours the gravest is raised by itself, and none tells a secret."""
    try:
        return await work()
    except Exception as error:
        ours = raised_on_purpose(error)
        if not ours or masker_of_process() is not None:
            raise  # of our own process the command line tells all of them
        worst = ours[0]
    # Outside of the handler, lest what was raised within, with its secrets, become its context.
    raise _masked(worst, masker)


def _masked(error: SmoothError, masker: Masker) -> SmoothError:
    error.message = masker.text(error.message)
    error.hint = error.hint and masker.text(error.hint)
    error.args = (error.message,)
    if isinstance(error, PlanInvalid):
        error.mistakes = _masked_all(error.mistakes, masker)
    elif isinstance(error, Refused):
        error.findings = _masked_all(error.findings, masker)
    return error


def _masked_all(mistakes: Collection[Mistake], masker: Masker) -> tuple[Mistake, ...]:
    return tuple(
        Mistake(each.place, masker.text(each.message), each.hint and masker.text(each.hint)) for each in mistakes
    )
