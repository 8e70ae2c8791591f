"""Sends spans by OpenTelemetry's SDK to a collector that is there."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from smooth_orchestrator import __version__
from smooth_orchestrator.traces.spans import Span, Trace

__all__ = ["Sender"]

_NAME: Final = "smooth-orchestrator"

# As many as may wait to be given to this.
_QUEUE_SIZE: Final = 32_768


class Sender:
    """Sends the spans of one trace, as OpenTelemetry's variables say. For one thread.

    Args:
        environ: these variables.
        protocol: which of OTLP's.
        trace: to which the spans belong.
        root: the span of the command, which begins with this: whether it is sampled counts for all others.

    Raises:
        Exception: what the SDK makes of variables that mean nothing.
    """

    def __init__(self, environ: Mapping[str, str], protocol: str, trace: Trace, root: Span) -> None:
        self._said = _silenced()
        self._exporter = _Exporter(_exporter(protocol))
        self._ids = _Ids(trace.trace_id)
        named = "OTEL_SERVICE_NAME" in environ or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({"service.version": __version__} | ({} if named else {"service.name": _NAME}))
        # The SDK would have the process wait for half a minute at its exit.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False, id_generator=self._ids)
        size = None if "OTEL_BSP_MAX_QUEUE_SIZE" in environ else _QUEUE_SIZE
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, max_queue_size=size))
        self._tracer = self._provider.get_tracer(_NAME, __version__)
        self._root = self._begun(root, TraceContextTextMapPropagator().extract(trace.carrier), {})

    @property
    def failures(self) -> int:
        """How many batches the collector has not taken."""
        return self._exporter.failures

    @property
    def error(self) -> Exception | str | None:
        """Why, where that is known."""
        return self._exporter.error or self._said.last

    def send(self, span: Span) -> None:
        """Send one that has ended."""
        attributes = {key: _encodable(value) for key, value in span.attributes.items()}
        if span.parent is None:
            begun = self._root
            begun.set_attributes(attributes)
        else:
            begun = self._begun(span, self._below(span.parent), attributes)
        if span.error is not None:
            message = _encodable(span.error["message"])
            begun.set_status(Status(StatusCode.ERROR, message))
            begun.set_attribute("error.type", span.error.get("sqlstate") or span.error["type"])
            if span.error.get("sqlstate"):
                begun.set_attribute("db.response.status_code", span.error["sqlstate"])
            said = {"exception.type": span.error["type"], "exception.message": message}
            begun.add_event("exception", said, timestamp=span.ended_ns)
        begun.end(span.ended_ns)

    def close(self) -> None:
        """Return once all was sent, or was given up."""
        self._provider.shutdown()

    def _begun(self, span: Span, context: Context, attributes: dict[str, Any]) -> SdkSpan:
        self._ids.span_id = span.span_id
        kind = SpanKind.CLIENT if span.asks else SpanKind.INTERNAL
        return self._tracer.start_span(_encodable(span.name), context, kind, attributes, start_time=span.began_ns)

    def _below(self, parent: Span) -> Context:
        """Return the context of what stands below a span, which ends later and is not known here yet."""
        root = self._root.get_span_context()
        above = SpanContext(root.trace_id, parent.span_id, False, root.trace_flags, root.trace_state)  # noqa: FBT003 - is_remote
        return set_span_in_context(NonRecordingSpan(above), Context())


class _Ids(IdGenerator):
    """Gives the ids that stand in the log already."""

    def __init__(self, trace_id: int) -> None:
        self._trace_id = trace_id
        self.span_id = 0

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Exporter(SpanExporter):
    """Remembers what has become of batches.

    Args:
        exporter: sends them.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.failures = 0
        self.error: Exception | None = None

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - it is told of at the end
            self.error = error
            result = SpanExportResult.FAILURE
        self.failures += result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


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
    raise ValueError(
        f"{protocol!r} is no protocol that is known here; set OTEL_EXPORTER_OTLP_PROTOCOL to http/protobuf or grpc"
    )


def _encodable(value: Any) -> Any:  # noqa: ANN401 - of an attribute
    if isinstance(value, str):
        # Halves of surrogate pairs, as in a name of a file, would keep a whole batch from being sent.
        return value.encode("utf-8", "backslashreplace").decode()
    return [_encodable(each) for each in value] if isinstance(value, list) else value


class _Said(logging.Handler):
    """Keeps what the SDK has said last of what it could not do."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _silenced() -> _Said:
    """Keep the SDK's own words from the log, one a try to export; what came of it is told at the end.

    For good: a thread that is no longer waited for may have something to say until the process ends.
    """
    logger, said = logging.getLogger("opentelemetry"), _Said()
    logger.propagate = False
    # Without any handler the standard library would write to stderr itself.
    logger.addHandler(said)
    return said
