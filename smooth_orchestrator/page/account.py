"""What is known of a run, from which its page is made."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Self

from smooth_orchestrator.report import Report
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.timeline import Timeline

__all__ = ["Account"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One run that has ended, as its journal tells.

    Args:
        report: what it has written in the end.
        timeline: when what happened.
        digest: of the plan by which it began; None where nothing tells.
        due_at: from when on what it held back may be finalised, by the plan as it is now; None where that is unknown.
    """

    report: Report
    timeline: Timeline = field(default_factory=Timeline)
    digest: str | None = None
    due_at: datetime | None = None

    def masked(self, masker: Masker) -> Self:
        """Return the same without a secret, whichever have been learnt since it was written."""
        timeline = Timeline.from_dict(masker.mask(self.timeline.to_dict()))
        return type(self)(
            report=self.report.masked(masker),
            timeline=timeline,
            digest=self.digest,
            due_at=self.due_at,
        )
