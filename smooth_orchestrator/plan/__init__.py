"""What a plan means: which databases, in which phases, under which rules. A pure step from its shape; no I/O."""

from smooth_orchestrator.plan.resolution import projects_of, resolve
from smooth_orchestrator.plan.values import (
    Finalise,
    Phase,
    Plan,
    Project,
    ProjectFacts,
    Target,
)

__all__ = [
    "Finalise",
    "Phase",
    "Plan",
    "Project",
    "ProjectFacts",
    "Target",
    "projects_of",
    "resolve",
]
