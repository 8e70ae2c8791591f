"""Which database a name stands for: two plans, or one in two environments, give different ones the same name. Pure."""

import os
from dataclasses import dataclass
from typing import Self

from smooth_orchestrator.plan import Plan, Target

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a database is known by, whatever a plan calls it.

    Args:
        address: where the settings say that it is.
        physical: what its server calls it, where that tells; the same over whatever address it was reached.
        relative: the address as earlier versions wrote it: a file below the plan's directory relative to that.
    """

    address: str
    physical: str = ""
    relative: str = ""

    @classmethod
    def of(cls, plan: Plan, target: Target, physical: str) -> Self:
        """Return a target's.

        Args:
            plan: that the target stands in.
            target: which.
            physical: as its worker has told it.
        """
        # A file that is copied, or restored from a backup, is another one to its file system.
        by_server = physical if target.vendor == "postgresql" else ""
        relative = target.identity.replace(f"{plan.directory}{os.sep}", "")
        return cls(target.identity, by_server, relative)

    def to_dict(self) -> dict[str, str]:
        """Return the values that a record keeps of it."""
        return {"address": self.address, "physical": self.physical}

    def differs(self, recorded: "Identity") -> bool:
        """Return whether this is known to be another one than a record's; by the address where no server tells."""
        if self.physical and recorded.physical:
            return self.physical != recorded.physical
        return recorded.address not in {self.address, self.relative}
