import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from typing import Any

import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from smooth_orchestrator.correspondents import Correspondent
from smooth_orchestrator.logs import (
    LogFormat,
    LogLevel,
    configure,
    get_logger,
    labelling,
    naming,
    on_every_line,
)
from smooth_orchestrator.report import Report, RunOutcome
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.traces.activation import endpoint_of
from smooth_orchestrator.traces.spans import Trace
from smooth_orchestrator.traces.tracer import Tracer
from smooth_orchestrator.traces.tree import Tree
from tests.support.log_lines import log_lines

_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
_TRACE = "0af7651916cd43dd8448eb211c80319c"
_PARENT = "b7ad6b7169203331"
_STEP = {"app": "orders", "migration": "0007_total", "direction": "forwards"}


@dataclass
class Made:
    """A span as it was asked for."""

    name: str
    parent: str | None
    began_ns: int
    ended_ns: int | None = None
    error: Mapping[str, Any] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


class Spans:
    """Remembers what spans were made; each of them ends once."""

    def __init__(self) -> None:
        self.made: list[Made] = []

    def start(self, name: str, parent: Made | None, at_ns: int, attributes: Mapping[str, Any], *, asks: bool) -> Made:
        """Remember one."""
        del asks
        self.made.append(Made(name, parent.name if parent else None, at_ns, attributes={**attributes}))
        return self.made[-1]

    def end(self, span: Made, at_ns: int, attributes: Mapping[str, Any], error: Mapping[str, Any] | None) -> None:
        """Remember its end."""
        assert span.ended_ns is None, f"{span.name} ended twice"
        span.ended_ns, span.error = at_ns, error
        span.attributes |= attributes


def event(name: str, at_s: float, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 - of any event
    moment = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"timestamp": moment, "level": "info", "event": name, "run_id": "r1", "deploy": "shop", **keys}


def tree_of(*events: Mapping[str, Any], outcome: RunOutcome = RunOutcome.COMMITTED) -> list[Made]:
    spans = Spans()
    tree: Tree[Made] = Tree(spans, spans.start("root", None, 0, {}, asks=False))
    for each in events:
        tree.hear(each)
    report = Report(
        command="deploy",
        deploy="shop",
        run_id="r1",
        outcome=outcome,
        started_at=datetime.fromtimestamp(0, UTC),
        duration_ms=1.0,
    )
    tree.end(report, 60_000_000_000)
    assert [span.name for span in spans.made if span.ended_ns is None] == []
    assert [span.name for span in spans.made if span.began_ns > (span.ended_ns or 0)] == []
    return spans.made


def test_what_is_still_open_when_a_command_ends_ends_with_it() -> None:
    made = tree_of(
        event("deploy.started", 1, command="deploy", databases=["a"]),
        event("preflight.passed", 2, duration_ms=1000.0),
        event("phase.started", 3, phase="all"),
        event("migration.started", 4, database="a", **_STEP),
        event("lock.waiting", 5, database="a", blockers=[], waited_ms=500.0),
        event("gate.started", 6, argv=["true"], phase="all"),
        outcome=RunOutcome.NEEDS_OPERATOR,
    )
    assert [(span.name, span.parent) for span in made] == [
        ("root", None),
        ("preflight", "root"),
        ("phase all", "root"),
        ("database a", "phase all"),
        ("migrate orders.0007_total", "database a"),
        ("lock wait", "migrate orders.0007_total"),
        ("gate", "phase all"),
    ]
    assert made[5].began_ns == 4_500_000_000
    assert made[0].error == {"type": "needs_operator", "message": ""}


def test_a_transaction_that_is_tried_again_has_a_span_for_each_try() -> None:
    error = {"type": "OperationalError", "message": "lock timeout", "sqlstate": "55P03"}
    started, retry = (
        event("migration.started", 2, database="a", **_STEP),
        event("lock.retry", 3, database="a", attempt=1, delay_ms=1.0, error=error),
    )
    made = tree_of(
        event("phase.started", 1, phase="all"),
        started,
        retry,
        started | {"timestamp": event("", 4)["timestamp"]},
        event("migration.applied", 5, database="a", duration_ms=1000.0, **_STEP),
        event("database.prepared", 6, database="a"),
    )
    tries = [span.error for span in made if span.name == "migrate orders.0007_total"]
    assert tries == [error, None]
    [database] = [span for span in made if span.name == "database a"]
    assert (database.error, database.ended_ns) == (None, 6_000_000_000)


def test_each_phase_that_commits_by_itself_has_its_decision_and_commits() -> None:
    events = []
    for number, phase in enumerate(("one", "two")):
        at_s = 10 * number
        events += [
            event("phase.started", at_s + 1, phase=phase),
            event("lease.acquired", at_s + 2, database=phase, epoch=1),
            event("database.prepared", at_s + 3, database=phase),
            event("phase.finished", at_s + 4, phase=phase, outcome="committed", duration_ms=3000.0),
            event("deploy.decided", at_s + 6, decision="commit", scope=phase, duration_ms=500.0),
            event("database.committed", at_s + 7, database=phase, tier="two_phase", duration_ms=800.0),
        ]
    made = tree_of(*events)
    commits = [span for span in made if span.name == "commit"]
    assert [(span.began_ns, span.ended_ns) for span in commits] == [(6 * 10**9, 11 * 10**9), (16 * 10**9, 60 * 10**9)]
    assert [span.parent for span in made if span.name.startswith("COMMIT PREPARED")] == ["commit", "commit"]
    prepared = [(span.began_ns, span.ended_ns) for span in made if span.name == "prepare"]
    assert prepared == [(4 * 10**9, 5_500_000_000), (14 * 10**9, 15_500_000_000)]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, True),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c"}, True),
    ],
)
def test_an_endpoint_turns_tracing_on_unless_it_is_turned_off(more: dict[str, str], *, wanted: bool) -> None:
    assert (endpoint_of(_ENDPOINT | more) is not None) is wanted
    assert endpoint_of({}) is None


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        (_ENDPOINT, "http://collector:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c/otlp/"}, "http://c/otlp/v1/traces"),
        (_ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://collector:4318"),
        (_ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/mine"}, "http://c/mine"),
    ],
)
def test_a_collector_is_asked_where_it_takes_traces(environ: dict[str, str], endpoint: str) -> None:
    assert endpoint_of(environ) == endpoint


@pytest.mark.parametrize(
    ("parent", "goes_on"),
    [
        (f"00-{_TRACE}-{_PARENT}-01", True),
        (f"  01-{_TRACE}-{_PARENT}-00-more ", True),
        (f"00-{_TRACE}-{_PARENT}-01-more", False),
        (f"ff-{_TRACE}-{_PARENT}-01", False),
        (f"00-{'0' * 32}-{_PARENT}-01", False),
        (f"00-{_TRACE}-{'0' * 16}-01", False),
        (f"00-{_TRACE.upper()}-{_PARENT}-01", False),
        ("", False),
    ],
)
def test_a_trace_goes_on_with_what_the_sdk_would_go_on_with(parent: str, *, goes_on: bool) -> None:
    trace = Trace.of({"TRACEPARENT": parent, "TRACESTATE": "a=b"})
    context = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": parent})).get_span_context()
    assert context.is_valid is goes_on
    assert (trace.trace_id == context.trace_id) is goes_on
    assert trace.carrier == ({"traceparent": parent, "tracestate": "a=b"} if goes_on else {})


@contextmanager
def logged() -> Iterator[StringIO]:
    """Set up the log of this process for the length of a context."""
    handlers, level, stream = logging.root.handlers, logging.root.level, StringIO()
    hooks = sys.excepthook, sys.unraisablehook
    try:
        configure(LogFormat.JSON, LogLevel.INFO, stream=stream, masker=Masker())
        yield stream
    finally:
        logging.root.handlers, logging.root.level = handlers, level
        sys.excepthook, sys.unraisablehook = hooks
        logging.captureWarnings(capture=False)


def test_a_labeller_that_fails_is_told_of_and_labels_no_more() -> None:
    def fail(event: Mapping[str, Any]) -> Mapping[str, Any]:
        raise RuntimeError(event["signal"])

    with logged() as stream, labelling(lambda _: {"span_id": "a"}), labelling(fail):
        get_logger().info("run.interrupted", signal="a")
        get_logger().info("run.interrupted", signal="b")
    lines = log_lines(stream.getvalue())
    assert [(line["event"], line["span_id"]) for line in lines] == [
        ("log.message", "a"),
        ("run.interrupted", "a"),
        ("run.interrupted", "a"),
    ]


def test_what_is_not_traced_imports_nothing_of_opentelemetry() -> None:
    program = """
import sys
from smooth_orchestrator.traces import tracer_of

assert tracer_of("deploy", {}) is None
sys.exit("opentelemetry" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_who_waits_for_another_thread_to_label_a_line_keeps_that_one_from_no_line_of_its_own() -> None:
    def label(said: Mapping[str, Any]) -> Mapping[str, str]:
        if said["message"] == "first":
            other = threading.Thread(target=lambda: get_logger().info("log.message", logger="x", message="second"))
            other.start()
            other.join()
        return {}

    with logged() as stream, labelling(label):
        get_logger().info("log.message", logger="x", message="first")
    assert [line["message"] for line in log_lines(stream.getvalue())] == ["second", "first"]


def test_what_another_machine_begins_anew_has_spans_of_each_machine() -> None:
    error = {"type": "worker_lost", "message": "the worker on one:7 has ended"}

    def begun(at_s: float, worker: str) -> list[dict[str, Any]]:
        return [
            event("lease.acquired", at_s, database="a", epoch=1, worker=worker),
            event("migration.started", at_s + 1, database="a", worker=worker, **_STEP),
        ]

    made = tree_of(
        event("phase.started", 1, phase="all"),
        *begun(2, "one:7"),
        event("database.begun_anew", 4, database="a", worker="one:7", error=error, kept=0),
        *begun(5, "two:8"),
        event("migration.applied", 7, database="a", duration_ms=1000.0, worker="two:8", **_STEP),
        event("database.prepared", 8, database="a", worker="two:8"),
    )
    spans = [
        (span.name, span.parent, span.attributes["smooth.worker"], span.error)
        for span in made
        if "smooth.worker" in span.attributes
    ]
    assert spans == [
        ("database a", "phase all", "one:7", error),
        ("migrate orders.0007_total", "database a", "one:7", error),
        ("database a", "phase all", "two:8", None),
        ("migrate orders.0007_total", "database a", "two:8", None),
    ]


def test_a_line_that_tells_of_another_run_s_trace_keeps_that_and_has_no_span_of_this_one() -> None:
    tracer = Tracer("worker", {}, "http/protobuf", Correspondent("traces", "http://127.0.0.1:9/v1/traces"))
    with logged() as stream, tracer.at_work():
        get_logger().info("log.message", logger="x", message="its own")
        with naming(run_id="r7", trace_id=_TRACE):
            get_logger().info("log.message", logger="x", message="another's")
        assert on_every_line().keys() == {"trace_id"}
    assert on_every_line() == {}
    own, others = log_lines(stream.getvalue())
    assert own.keys() >= {"trace_id", "span_id"}
    assert own["trace_id"] != _TRACE
    assert (others["run_id"], others["trace_id"], "span_id" in others) == ("r7", _TRACE, False)
