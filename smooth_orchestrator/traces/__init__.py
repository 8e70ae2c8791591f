"""One trace a run, for whoever collects OpenTelemetry's: made of the events, as they come."""

from smooth_orchestrator.traces.activation import tracer_of

__all__ = ["tracer_of"]
