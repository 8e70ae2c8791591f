"""Whether a run is traced: OpenTelemetry's own variables say so, and where to."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.traces.late import LateTracer

__all__ = ["endpoint_of", "tracer_of"]

# The first of them that is given counts.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def endpoint_of(environ: Mapping[str, str]) -> str | None:
    """Return the endpoint for traces that the variables name, or None where there is none, or they say not to trace.

    See OpenTelemetry's specification, Environment Variable Specification.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    if "otlp" not in exporters:
        return None
    return next((named for name in _ENDPOINTS if (named := environ.get(name, "").strip())), None)


def tracer_of(command: str, environ: Mapping[str, str]) -> LateTracer | None:
    """Return what traces a command, or None where that is not wanted, or OpenTelemetry is not installed.

    A pipeline names its collector for all of its programs, so one that cannot trace is silent.

    Args:
        command: its name.
        environ: the environment.
    """
    endpoint = endpoint_of(environ)
    if endpoint is None or find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return None
    return LateTracer(command, environ, Correspondent("traces", endpoint))
