"""Which database a name stands for: two plans, or one in two environments, give different ones the same name. Pure."""

import os
from dataclasses import asdict, dataclass
from typing import Self

from smooth_orchestrator.plan import Plan, Target

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """What a database is known by, whatever a plan calls it.

    Args:
        address: where the settings say that it is; a file below the plan's directory relative to it.
        physical: what its server calls it, where that tells; the same over whatever address it was reached.
    """

    address: str
    physical: str = ""

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
        return cls(target.identity.replace(f"{plan.directory}{os.sep}", ""), by_server)

    def to_dict(self) -> dict[str, str]:
        """Return the values that a record keeps of it."""
        return asdict(self)

    def differs(self, other: "Identity") -> bool:
        """Return whether the two are known to be different databases; by their addresses where no server tells."""
        if self.physical and other.physical:
            return self.physical != other.physical
        return self.address != other.address
