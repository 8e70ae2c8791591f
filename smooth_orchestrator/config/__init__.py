"""The shape of a plan: TOML to typed tables, with every mistake at once.

What the tables mean (which databases, in which phases) is the business of `smooth_orchestrator.plan`.
"""

from smooth_orchestrator.config.reading import load, understand
from smooth_orchestrator.config.tables import (
    Atomicity,
    CommitUnit,
    DatabaseTable,
    DeployTable,
    FinaliseTable,
    FleetTable,
    OnFailure,
    PhaseTable,
    PlanFile,
    ProjectTable,
    Tier,
    Transport,
)

__all__ = [
    "Atomicity",
    "CommitUnit",
    "DatabaseTable",
    "DeployTable",
    "FinaliseTable",
    "FleetTable",
    "OnFailure",
    "PhaseTable",
    "PlanFile",
    "ProjectTable",
    "Tier",
    "Transport",
    "load",
    "understand",
]
