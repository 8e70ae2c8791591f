"""Whether a project still has the migration files that an interrupted run has to be finished with."""

from typing import Final

from smooth_migrations.protocol import Back, ErrorInfo, Failed, Inspect, TargetReport
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.silence import call_unless_silent

__all__ = ["other_files"]

_CODES: Final = frozenset({"missing_file", "changed_file"})
# A long history takes a while to be read.
_LOOK_S: Final = 300.0


async def other_files(run: Run, fleet: Fleet, item: TargetRun, moves: Back) -> ErrorInfo | None:
    """Return why a target cannot be run forward: nothing would be pending without the files. Reads only.

    Args:
        run: which.
        fleet: its workers.
        item: the target.
        moves: the migrations that the run moves there.

    Returns:
        What is missing or changed, or why nobody can tell; None where all is as it was.
    """
    try:
        worker = await fleet.living(run.plan, item.target)
        command = Inspect(
            id=worker.next_id(),
            database=item.name,
            alias=item.target.alias,
            back=moves,
            lock_timeout_ms=item.target.lock_timeout_ms,
            statement_timeout_ms=run.plan.statement_timeout_ms,
        )
        answer = await call_unless_silent(worker, command, _LOOK_S)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    if isinstance(answer, Failed):
        return answer.error
    found = [each for each in answer.findings if each.code in _CODES] if isinstance(answer, TargetReport) else []
    if not found:
        return None
    message = "; ".join(each.message for each in found)
    hint = "run smooth-orchestrate recover PLAN with the files of the release that was interrupted"
    return ErrorInfo("other_files", message, hint=hint)
