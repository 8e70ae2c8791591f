"""Whose run it was that left something, and whether a database of this plan is one of that run's."""

from dataclasses import dataclass

import anyio

from smooth_migrations.protocol import ErrorInfo, Standing
from smooth_orchestrator.errors import Refused
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.identity import Identity
from smooth_orchestrator.run import Run, TargetRun
from smooth_orchestrator.standing import ask_standing
from smooth_orchestrator.told import Told

__all__ = ["Unmarked", "another_database", "identity_of", "unmarked"]

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


@dataclass(frozen=True, slots=True)
class Unmarked:
    """The databases of a plan that do not show that a committed run has moved them, as its journal says.

    Args:
        run_id: the run.
        names: of these databases.
        others: of those among them that are known to be other ones than the run's of that name.
        is_elsewhere: whether the run has moved no database of this plan, but such of the same names.
    """

    run_id: str
    names: frozenset[str]
    others: frozenset[str]
    is_elsewhere: bool

    def refusal(self) -> Refused:
        """Return the error that names them."""
        names = ", ".join(sorted(self.names))
        return Refused(f"nothing on {names} shows that the run {self.run_id} has moved that database", hint=_HINT)


async def unmarked(run: Run, fleet: Fleet, run_id: str, told: Told) -> Unmarked:
    """Return which databases of this plan do not show that a committed run has moved them, as its journal says.

    Only reads. One that cannot be asked is left out, as are all where an earlier version wrote the run's beginning.

    Args:
        run: of the command that asks.
        fleet: its workers.
        run_id: of the committed run.
        told: what its records say.
    """
    looking = Run(run.plan, run_id, run.journal)
    found: dict[str, bool] = {}

    async def look(item: TargetRun) -> None:
        standing = await ask_standing(looking, fleet, item)
        if isinstance(standing, Standing) and standing.marker(run_id) is None:
            found[item.name] = told.was_another(item.name, identity_of(looking, item, standing))

    async with anyio.create_task_group() as group:
        for item in looking.targets:
            if item.name in told.moved and item.name in told.identities:
                group.start_soon(look, item)
    others = frozenset(name for name, is_another in found.items() if is_another)
    return Unmarked(run_id, frozenset(found), others, bool(told.moved) and told.moved <= others)
