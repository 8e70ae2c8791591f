"""What becomes of an interrupted run: pure rules, from what its journal says and its databases show.

| decision | a database shows | it is |
|---|---|---|
| none | a transaction prepared | rolled back: presumed abort |
| none | committed steps | reversed |
| abort | the same, or the marker of a phase that was committed | likewise |
| abort | such a marker, and the journal has lost what was moved there | for an operator to move, and to say so |
| commit | a transaction prepared | committed, never compensated |
| commit | the run's marker | done already |
| commit | committed steps, or nothing | run forward again |
| lost | the marker in any database | as decided to commit: no tier shows it before |
| lost | transactions prepared or committed steps, and no marker | for an operator to decide |
| lost | nothing, and no marker beside it says that it belonged to the run | left alone |
"""

from collections.abc import Collection
from enum import StrEnum

from smooth_orchestrator.events import Decision

__all__ = ["Action", "Shown", "action", "verdict"]


class Shown(StrEnum):
    """What a database shows of a run."""

    NOTHING = "nothing"
    STEPS = "steps"
    PREPARED = "prepared"
    DONE = "done"


class Action(StrEnum):
    """What settles a database."""

    LEAVE = "leave"
    COMMIT = "commit"
    RUN_FORWARD = "run_forward"
    ROLL_BACK = "roll_back"
    REVERSE = "reverse"
    ASK = "ask"
    UNMARK = "unmark"


_ACTIONS = {
    Decision.COMMIT: {
        Shown.NOTHING: Action.RUN_FORWARD,
        Shown.STEPS: Action.RUN_FORWARD,
        Shown.PREPARED: Action.COMMIT,
        Shown.DONE: Action.LEAVE,
    },
    Decision.ABORT: {
        Shown.NOTHING: Action.LEAVE,
        Shown.STEPS: Action.REVERSE,
        Shown.PREPARED: Action.ROLL_BACK,
        Shown.DONE: Action.REVERSE,
    },
}


def verdict(
    decided: Decision | None, shown: Collection[Shown], *, is_known: bool, is_whole: bool = True
) -> Decision | None:
    """Return how a run, or a phase of one that commits by phase, is to be settled; None where nobody can tell.

    Args:
        decided: the last decision about it that its journal holds.
        shown: what each of its databases shows.
        is_known: whether the journal holds the run at all.
        is_whole: whether all of its databases could be looked at; one that could not may hold the marker.
    """
    if decided is not None:
        return decided
    if Shown.DONE in shown:
        return Decision.COMMIT
    if not is_whole:
        return None
    if is_known or not {Shown.PREPARED, Shown.STEPS} & {*shown}:
        return Decision.ABORT
    return None


def action(
    decision: Decision, shown: Shown, *, belongs: bool = True, is_told: bool = True, is_accepted: bool = False
) -> Action:
    """Return what settles a database by a decision; `ASK` where nothing can, and an operator has to.

    Args:
        decision: about the run.
        shown: what the database shows of it.
        belongs: whether it is known to be one of the run's even where it shows nothing.
        is_told: whether the journal tells what was moved there; committed steps that are not yet the run's mark stand
            in the database's own.
        is_accepted: whether an operator says that the database is right as it is.
    """
    if shown is Shown.NOTHING and not belongs:
        return Action.LEAVE
    if decision is Decision.ABORT and shown is Shown.DONE and not is_told:
        return Action.UNMARK if is_accepted else Action.ASK
    return _ACTIONS[decision][shown]
