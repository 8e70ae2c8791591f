"""What an operator says of interrupted runs, and what has come of one that was settled."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from smooth_orchestrator.events import Decision
from smooth_orchestrator.journal import RunSummary
from smooth_orchestrator.report import RunOutcome
from smooth_orchestrator.run import Run

__all__ = ["Said", "Settled"]


@dataclass(frozen=True, slots=True)
class Settled:
    """An interrupted run after it was settled, or as far as it could be.

    Args:
        run: with a stage for each database.
        summary: as the journal knew it.
        outcome: `COMMITTED`, `HALTED`, `ROLLED_BACK` or `NEEDS_OPERATOR`.
        decided: the last decision about it that the journal had.
    """

    run: Run
    summary: RunSummary
    outcome: RunOutcome
    decided: Decision | None = None

    @property
    def cut_off(self) -> str:
        """When it was cut off, in words that follow these."""
        if self.summary.command == "rehearse":
            return "while it rehearsed, which changes nothing"
        return "while it was taken back" if self.decided is Decision.ABORT else "before its decision"


@dataclass(frozen=True, slots=True)
class Said:
    """What an operator says of interrupted runs.

    Args:
        decision: about those of which nobody else can tell.
        discards: whether what is taken back may lose rows and values that were written since.
        compares: whether the schema of what is taken back is compared with what it was.
        accepted: databases that are right as they are, of those where nobody knows what was moved.
        is_asked: whether to settle them is all that is wanted: then one of another environment is not passed over.
    """

    decision: Decision | None = None
    discards: bool = False
    compares: bool = True
    accepted: AbstractSet[str] = frozenset()
    is_asked: bool = False
