"""How far a run has come, as values that a table is made of."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["DatabaseTold", "PhaseTold", "State", "Told"]


class State(StrEnum):
    """How far one database has come, in words; the first of them concern a person most."""

    FAILED = "failed"
    WAITING = "waiting"
    RETRYING = "retrying"
    GOING_BACK = "going back"
    AT_WORK = "at work"
    READY = "ready"
    ROLLED_BACK = "rolled back"
    COMMITTED = "committed"
    TO_COME = "to come"
    IDLE = "idle"

    @property
    def is_live(self) -> bool:
        """Whether there is more to be said of such a database than how many there are."""
        return self in _LIVE


_LIVE: Final = {State.FAILED, State.WAITING, State.RETRYING, State.GOING_BACK, State.AT_WORK}


@dataclass(frozen=True, slots=True)
class DatabaseTold:
    """What is known of one database.

    Args:
        name: the target's.
        state: how far it has come.
        since_s: when it came to that, or began with the migration at work.
        migration: `app.name` of that.
        moved: how many of its migrations have been run.
        pending: how many there were to run; 0 while that is not known.
        note: whom it waits for, why it failed, or what it has printed.
        worker: the machine of a fleet that works on it, or has done so last.
    """

    name: str
    state: State
    since_s: float
    migration: str = ""
    moved: int = 0
    pending: int = 0
    note: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class PhaseTold:
    """What is known of one phase.

    Args:
        name: its name.
        state: `TO_COME`, `AT_WORK`, `READY`, or `ROLLED_BACK` for one in which a failure or a signal came.
        gate: the command line of the gate at work, if one is.
        since_s: when that gate began.
    """

    name: str
    state: State = State.TO_COME
    gate: str = ""
    since_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """What is known of a command at one moment.

    Args:
        command: its name.
        deploy: whose; empty while that is not known.
        run_id: its run; the same.
        doing: what it is at, in words.
        for_s: for how long the command has been at work.
        now_s: the moment.
        phases: in order.
        databases: in the plan's order.
    """

    command: str
    deploy: str
    run_id: str
    doing: str
    for_s: float
    now_s: float
    phases: tuple[PhaseTold, ...] = ()
    databases: tuple[DatabaseTold, ...] = ()
