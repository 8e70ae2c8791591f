"""Whether a run is traced: OpenTelemetry's own variables say so, and where to."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Final

from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.traces.tracer import Tracer

__all__ = ["endpoint_of", "protocol_of", "tracer_of"]

_OF_TRACES: Final = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_OF_ALL: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PATH: Final = "/v1/traces"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def endpoint_of(environ: Mapping[str, str]) -> str | None:
    """Return where the variables send traces, or None where they name nowhere, or say not to trace.

    See OpenTelemetry's specification, Environment Variable Specification and OpenTelemetry Protocol Exporter.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporters = [name.strip() for name in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")]
    if "otlp" not in exporters:
        return None
    if named := environ.get(_OF_TRACES, "").strip():
        return named
    named = environ.get(_OF_ALL, "").strip()
    return named.rstrip("/") + _PATH if named and protocol_of(environ) == "http/protobuf" else named or None


def protocol_of(environ: Mapping[str, str]) -> str:
    """Return the protocol that the variables name."""
    return next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")


def tracer_of(command: str, environ: Mapping[str, str]) -> Tracer | None:
    """Return what traces a command, or None where that is not wanted, or OpenTelemetry is not installed.

    A pipeline names its collector for all of its programs, so one that cannot trace is silent.

    Args:
        command: its name.
        environ: the environment.
    """
    endpoint = endpoint_of(environ)
    if endpoint is None or find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
        return None
    return Tracer(command, environ, protocol_of(environ), Correspondent("traces", endpoint))
