"""Makes spans of a run's events, and has them sent once a collector is there; no command waits long, or fails, for it.

Nothing of OpenTelemetry's SDK, which takes long to import, is needed for a span; it is what sends them.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from threading import RLock
from typing import Any, Final

from smooth_orchestrator import leisure
from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger, labelling, tracing
from smooth_orchestrator.report import Report
from smooth_orchestrator.traces.spans import Recorder, Span, Trace
from smooth_orchestrator.traces.tree import Tree

__all__ = ["Tracer"]

# Spans that wait for the collector; a fleet of a thousand databases commits within a second or two.
_QUEUE_SIZE: Final = 32_768


class Tracer:
    """Traces one command, from the moment on at which this is made.

    Args:
        command: its name.
        environ: with TRACEPARENT and TRACESTATE of the trace that is gone on with, if there is one.
        protocol: of the collector.
        collector: who is to take the spans.
    """

    def __init__(self, command: str, environ: Mapping[str, str], protocol: str, collector: Correspondent) -> None:
        self._environ = environ
        self._protocol = protocol
        self._collector = collector
        self._trace = Trace.of(environ)
        self._trace_id = f"{self._trace.trace_id:032x}"
        self._hearing = RLock()
        # None is the end.
        self._ended: SimpleQueue[Span | None] = SimpleQueue()
        self._is_whole = True
        self._error: Exception | str | None = None
        recorder = Recorder(self._keep)
        self._root = recorder.start(f"smooth-orchestrate {command}", None, time.time_ns(), {}, asks=False)
        self._tree = Tree(recorder, self._root)
        self._sending = leisure.run_beside("traces", self._send)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hear every event for the length of a context, and name on its line the span that it belongs to."""
        with tracing(self._trace_id), labelling(self._label):
            yield

    def end(self, report: Report) -> None:
        """End the trace, and wait a moment until the collector has it. What it has not is one warning in the log."""
        with self._hearing:
            self._tree.end(report, time.time_ns())
        self._ended.put(None)
        leisure.begin()
        if not self._collector.tell(self._sending.join) or not self._is_whole:
            lost = "did not get all of" if self._collector.has_answered else "has not answered, and did not get"
            why = f": {self._error}" if self._error else ""
            message = f"the collector {lost} the run's trace{why}"
            get_logger().warning(EventName.LOG_MESSAGE, logger="traces", message=message)

    def _label(self, event: Mapping[str, Any]) -> Mapping[str, str]:
        if event.get("trace_id") != self._trace_id:
            return {}  # a machine of a fleet tells of another one's run
        # Threads log beside each other.
        with self._hearing:
            span = self._tree.hear(event)
        return {"span_id": f"{span.span_id:016x}"}

    def _keep(self, span: Span) -> None:
        if self._ended.qsize() < _QUEUE_SIZE:
            self._ended.put(span)
        else:
            self._is_whole = False

    def _send(self) -> None:
        self._collector.wait()
        leisure.wait()
        try:
            from smooth_orchestrator.traces.sender import Sender  # noqa: PLC0415 - see the module's docstring

            sender = Sender(self._environ, self._protocol, self._trace, self._root)
            for span in iter(self._ended.get, None):
                sender.send(span)
            sender.close()
        except Exception as error:  # noqa: BLE001 - it is told of at the end
            self._is_whole, self._error = False, error
        else:
            self._is_whole &= not sender.failures
            self._error = sender.error
