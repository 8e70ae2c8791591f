"""A collector of OpenTelemetry's traces: takes OTLP over HTTP, and over gRPC, and keeps the spans."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from gzip import decompress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

__all__ = ["Collected", "Span", "collecting", "collecting_by_grpc"]


@dataclass(frozen=True, slots=True)
class Span:
    """One span as it came.

    Args:
        name: its name.
        trace_id: of its trace, in hexadecimal digits.
        span_id: its own.
        parent_id: that of the span above, empty where there is none.
        kind: as OTLP counts: 1 is internal, 3 a client.
        began_ns: when it began.
        ended_ns: when it ended.
        error: the message of its status, where that is an error.
        attributes: its own.
        resource: those of who sent it.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    began_ns: int
    ended_ns: int
    error: str | None
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass(slots=True)
class Collected:
    """What has come so far, and where it is taken."""

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of a request."""
        for group in request.resource_spans:
            resource = {each.key: _value(each.value) for each in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            span.kind,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None,
                            {each.key: _value(each.value) for each in span.attributes},
                            resource,
                        )
                    )

    def named(self, name: str) -> Span:
        """Return the one span of this name."""
        [span] = [each for each in self.spans if each.name == name]
        return span

    def tree(self) -> set[tuple[str, str | None]]:
        """Return the name of each span with that of its parent, None where that is not here."""
        names = {each.span_id: each.name for each in self.spans}
        return {(each.name, names.get(each.parent_id)) for each in self.spans}


def _value(value: AnyValue) -> Any:  # noqa: ANN401 - whatever an attribute holds
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


@contextmanager
def collecting() -> Iterator[Collected]:
    """Take OTLP over HTTP for the length of a context."""
    collected = Collected()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = decompress(body)
            collected.paths.append(self.path)
            collected.take(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collected.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield collected
        finally:
            server.shutdown()


@contextmanager
def collecting_by_grpc() -> Iterator[Collected]:
    """Take OTLP over gRPC for the length of a context."""
    collected = Collected()

    class Servicer(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, _context: object) -> ExportTraceServiceResponse:  # noqa: N802 - named by the service
            collected.take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call] # generated
    collected.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collected
    finally:
        server.stop(None).wait()
