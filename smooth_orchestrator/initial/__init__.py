"""The first plan of a project: written from what its settings say, for a person to go on with."""

from smooth_orchestrator.initial.initialising import Initialised, initialise

__all__ = ["Initialised", "initialise"]
