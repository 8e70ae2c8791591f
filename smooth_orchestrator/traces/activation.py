"""Whether a run is traced: OpenTelemetry's own variables say so, and where to."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from smooth_orchestrator.traces.tracer import Tracer

__all__ = ["is_wanted", "tracer_of"]

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Return whether the variables name an endpoint for traces, and nothing there says not to trace.

    See OpenTelemetry's specification, Environment Variable Specification.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    return "otlp" in exporters and any(environ.get(name, "").strip() for name in _ENDPOINTS)


def tracer_of(command: str, environ: Mapping[str, str]) -> "Tracer | None":
    """Return what traces a command, or None where that is not wanted, or OpenTelemetry is not installed.

    A pipeline names its collector for all of its programs, so one that cannot trace is silent.

    Args:
        command: its name.
        environ: the environment.
    """
    if not is_wanted(environ) or find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return None
    # A quarter of a second, which nobody else is to wait for.
    from smooth_orchestrator.traces.tracer import Tracer  # noqa: PLC0415 - see above

    return Tracer.of(command, environ)
