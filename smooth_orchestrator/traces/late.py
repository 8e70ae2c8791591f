"""A tracer that is made no sooner than the first event comes: OpenTelemetry's SDK takes a while to import."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.leisure import begin, import_at_leisure
from smooth_orchestrator.logs import labelling
from smooth_orchestrator.report import Report

if TYPE_CHECKING:
    from smooth_orchestrator.traces.tracer import Tracer

__all__ = ["LateTracer"]


class LateTracer:
    """Traces one command, from the moment on at which this is made.

    Args:
        command: its name.
        environ: the environment.
        collector: who is told.
    """

    def __init__(self, command: str, environ: Mapping[str, str], collector: Correspondent) -> None:
        self._command = command
        self._environ = environ
        self._collector = collector
        self._began_ns = time.time_ns()
        self._importing = import_at_leisure("smooth_orchestrator.traces.tracer")
        self._making = threading.RLock()
        self._is_made = False
        self._tracer: Tracer | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hear every event for the length of a context, and name on its line the span that it belongs to."""
        with labelling(self._label):
            yield

    def end(self, report: Report) -> None:
        """End the trace, and wait a moment until the collector has it. What it has not is one warning in the log."""
        tracer = self._made()
        if tracer is not None:
            tracer.end(report)

    def _label(self, event: Mapping[str, Any]) -> Mapping[str, str]:
        # What is imported may warn of something, before there is any span.
        if threading.current_thread() is self._importing:
            return {}
        tracer = self._made()
        return {} if tracer is None else tracer.label(event)

    def _made(self) -> "Tracer | None":
        begin()
        self._importing.join()
        with self._making:
            if not self._is_made:
                # By now, since a failure is told of in the log, which asks for a label.
                self._is_made = True
                from smooth_orchestrator.traces.tracer import Tracer  # noqa: PLC0415 - see the module's docstring

                self._tracer = Tracer.of(self._command, self._environ, self._collector, self._began_ns)
            return self._tracer
