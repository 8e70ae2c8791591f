"""Spans by OpenTelemetry's SDK, sent to a collector beside the run; no command waits long, or fails, for these."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Tracer as SdkTracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from smooth_orchestrator import __version__
from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.events import EventName
from smooth_orchestrator.leisure import run_beside
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.report import Report
from smooth_orchestrator.traces.tree import Tree

__all__ = ["Tracer"]

_NAME: Final = "smooth-orchestrator"
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

# Spans that wait for the collector; a fleet of a thousand databases commits within a second or two.
_QUEUE_SIZE: Final = 32_768


class Tracer:
    """Traces one command: as a whole, and all that its events tell of.

    Args:
        command: its name.
        provider: of the SDK, with its exporter.
        exported: knows what the collector did not take.
        environ: with TRACEPARENT and TRACESTATE of the trace that is gone on with, if there is one.
        began_ns: when it began.
    """

    def __init__(
        self,
        command: str,
        provider: TracerProvider,
        exported: "_Exported",
        environ: Mapping[str, str],
        began_ns: int,
    ) -> None:
        self._provider = provider
        self._exported = exported
        self._hearing = threading.RLock()
        carrier = {name: environ[name.upper()] for name in ("traceparent", "tracestate") if name.upper() in environ}
        context = TraceContextTextMapPropagator().extract(carrier)
        spans = _Spans(provider.get_tracer(_NAME, __version__), context)
        root = spans.start(f"smooth-orchestrate {command}", None, began_ns, {}, asks=False)
        self._tree = Tree(spans, root)

    @classmethod
    def of(cls, command: str, environ: Mapping[str, str], collector: Correspondent, began_ns: int) -> Self | None:
        """Return one that exports as OpenTelemetry's variables say, or None, with a warning, where that fails."""
        _silence()
        protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "http/protobuf")
        try:
            exported = _Exported(lambda: _exporter(protocol), collector)
            named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
            resource = Resource.create({"service.version": __version__} | ({} if named else {"service.name": _NAME}))
            # The SDK would have the process wait for half a minute at its exit.
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            size = None if "OTEL_BSP_MAX_QUEUE_SIZE" in environ else _QUEUE_SIZE
            provider.add_span_processor(BatchSpanProcessor(exported, max_queue_size=size))
            return cls(command, provider, exported, environ, began_ns)
        except Exception as error:  # noqa: BLE001 - who watches a command does not fail it
            _warn(f"this run is not traced: {error}")
            return None

    def label(self, event: Mapping[str, Any]) -> Mapping[str, str]:
        """Hear an event, and return the keys that name the span it belongs to."""
        # Threads log beside each other; and what hears may warn of something, which is logged too.
        with self._hearing:
            context = self._tree.hear(event).get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def end(self, report: Report) -> None:
        """End the trace, and wait a moment until the collector has it. What it has not is one warning in the log."""
        self._tree.end(report, time.time_ns())
        collector = self._exported.collector
        is_told = collector.tell(self._shut_down)
        if not is_told or self._exported.failures:
            lost = "did not get all of" if collector.has_answered else "has not answered, and did not get"
            why = f": {self._exported.error}" if self._exported.error else ""
            _warn(f"the collector {lost} the run's trace{why}")

    def _shut_down(self) -> None:
        with suppress(Exception):
            self._provider.shutdown()


class _Spans:
    """Makes spans as `Tree` wants them."""

    def __init__(self, tracer: SdkTracer, context: Context) -> None:
        self._tracer = tracer
        self._context = context

    def start(self, name: str, parent: Span | None, at_ns: int, attributes: Mapping[str, Any], *, asks: bool) -> Span:
        return self._tracer.start_span(
            _encodable(name),
            self._context if parent is None else set_span_in_context(parent),
            SpanKind.CLIENT if asks else SpanKind.INTERNAL,
            {key: _encodable(value) for key, value in attributes.items()},
            start_time=at_ns,
        )

    def end(self, span: Span, at_ns: int, attributes: Mapping[str, Any], error: Mapping[str, Any] | None) -> None:
        span.set_attributes({key: _encodable(value) for key, value in attributes.items()})
        if error is not None:
            message = _encodable(error["message"])
            span.set_status(Status(StatusCode.ERROR, message))
            span.set_attribute("error.type", error.get("sqlstate") or error["type"])
            if error.get("sqlstate"):
                span.set_attribute("db.response.status_code", error["sqlstate"])
            said = {"exception.type": error["type"], "exception.message": message}
            span.add_event("exception", said, timestamp=at_ns)
        span.end(at_ns)


class _Exported(SpanExporter):
    """An exporter that is made when it is needed, beside the command, and what has become of its batches.

    Args:
        make: makes it; its client takes as long to import as all of the SDK.
        collector: who is to take them.
    """

    def __init__(self, make: Callable[[], SpanExporter], collector: Correspondent) -> None:
        self.collector = collector
        self._make = make
        self._making = threading.Lock()
        self._exporter: SpanExporter | None = None
        self.failures = 0
        self.error: Exception | None = None
        # By the end of the command it is there, even for a collector that has a moment only.
        run_beside("traces", self._prepare)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._made().export(spans)
        except Exception as error:  # noqa: BLE001 - it is told of at the end
            self.error = error
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.collector.has_answered = True
        else:
            self.failures += 1
        return result

    def shutdown(self) -> None:
        if self._exporter is not None:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter is None or self._exporter.force_flush(timeout_millis)

    def _prepare(self) -> None:
        # What cannot be made is told of when it is needed.
        with suppress(Exception):
            self._made()

    def _made(self) -> SpanExporter:
        with self._making:
            if self._exporter is None:
                self._exporter = self._make()
            return self._exporter


def _exporter(protocol: str) -> SpanExporter:
    # Each of the two brings a client of its own; one of them may be missing.
    match protocol:
        case "http/protobuf":
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - see above
                OTLPSpanExporter as HttpExporter,
            )

            return HttpExporter()
        case "grpc":
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415 - see above
                OTLPSpanExporter as GrpcExporter,
            )

            return GrpcExporter()
    raise ValueError(f"{protocol!r} is no protocol that is known here; set {_PROTOCOLS[0]} to http/protobuf or grpc")


def _encodable(value: Any) -> Any:  # noqa: ANN401 - of an attribute
    if isinstance(value, str):
        # Halves of surrogate pairs, as in a name of a file, would keep a whole batch from being sent.
        return value.encode("utf-8", "backslashreplace").decode()
    return [_encodable(each) for each in value] if isinstance(value, list) else value


def _silence() -> None:
    """Keep the SDK's own words from the log, one a try to export; what came of it is told at the end.

    For good: a thread that is no longer waited for may have something to say until the process ends.
    """
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    # Without any handler the standard library would write to stderr itself.
    logger.addHandler(logging.NullHandler())


def _warn(message: str) -> None:
    get_logger().warning(EventName.LOG_MESSAGE, logger="traces", message=message)
