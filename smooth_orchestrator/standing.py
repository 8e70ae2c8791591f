"""Ask a worker what a run has left in a database."""

from typing import Final

from smooth_migrations.protocol import ErrorInfo, Failed, Look, Standing
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.silence import call_unless_silent

__all__ = ["ask_standing"]

_LOOK_S: Final = 30.0


async def ask_standing(run: Run, fleet: Fleet, item: TargetRun, *, fences: bool = False) -> Standing | ErrorInfo:
    """Return what a run has left in a target's database, or why nobody can tell. Ends the run's sessions there.

    Args:
        run: which.
        fleet: its workers; a lost one is replaced.
        item: the target.
        fences: whether what a sleeping worker holds there must not be committed any more.
    """
    try:
        worker = await fleet.living(run.plan, item.target)
        command = Look(
            id=worker.next_id(),
            database=item.name,
            alias=item.target.alias,
            deploy=run.plan.name,
            runs=(run.run_id,),
            fences=fences,
            lost=item.turn if item.is_lost else None,
        )
        answer = await call_unless_silent(worker, command, _LOOK_S)
    except WorkerError as error:
        return ErrorInfo(error.code, error.message, hint=error.hint)
    if isinstance(answer, Standing):
        return answer
    return answer.error if isinstance(answer, Failed) else ErrorInfo("unexpected", "a worker gave no answer")
