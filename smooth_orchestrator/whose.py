"""Whose run it was that left something, and whether a database of this plan is one of that run's."""

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_orchestrator.identity import Identity
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.told import Told

__all__ = ["another_database", "identity_of"]

_HINT = "run this with the plan, and its environment, as it was"


def identity_of(run: Run, item: TargetRun, standing: Standing | None = None) -> Identity:
    """Return which database a target is, as its inspection or a look at it tells. Pure."""
    physical = standing.physical if standing else item.found.physical if item.found else ""
    return Identity.of(run.plan, item.target, physical)


def another_database(run: Run, item: TargetRun, told: Told, standing: Standing) -> ErrorInfo | None:
    """Return why a target of this plan is not the run's of that name, to one that shows nothing of the run; else None.

    Pure. One that shows something of it is the run's, also where it was restored elsewhere since.
    """
    if not told.was_another(item.name, identity_of(run, item, standing)):
        return None
    message = f"{item.name} is not in this plan: it was another database in the run {run.run_id}"
    return ErrorInfo("not_in_plan", message, hint=_HINT)
