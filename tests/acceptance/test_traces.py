"""What a collector of OpenTelemetry's is given of real deploys, and what becomes of these where there is none."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support.collector import Collected, collecting, collecting_by_grpc
from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import BROKEN, NOTE

_INTERNAL: Final = 1
_CLIENT: Final = 3
_TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
_PARENT: Final = "b7ad6b7169203331"


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as made:
        yield made


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collected]:
    """A collector that the program is told of."""
    with collecting() as found:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.endpoint)
        yield found


def _deploy(fleet: Fleet, *options: str) -> Outcome:
    # As a process of its own, whose end is part of what is asked here.
    return fleet.run("deploy", *options, under=["env"])


def test_a_deploy_is_one_trace_of_all_that_was_done(
    fleet: Fleet, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{_TRACE}-{_PARENT}-01")
    fleet.plan(shards='gate = ["true"]')
    outcome = _deploy(fleet)
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr

    assert {*collected.paths} == {"/v1/traces"}
    root = "smooth-orchestrate deploy"
    expected = {(root, None), *((name, root) for name in ("preflight", "prepare", "decide", "commit"))}
    for phase, databases in {"canary": ("primary", "kiosk"), "fleet": (LAST,)}.items():
        expected.add((f"phase {phase}", root))
        expected |= {(f"database {name}", f"phase {phase}") for name in databases}
        expected |= {("migrate demo.0002_note", f"database {name}") for name in databases}
    expected |= {("gate", "phase fleet"), ("COMMIT kiosk", root)}
    expected |= {(f"COMMIT PREPARED {name}", "commit") for name in ("primary", LAST)}
    assert collected.tree() == expected
    assert {span.trace_id for span in collected.spans} == {_TRACE}
    assert collected.named(root).parent_id == _PARENT
    assert {line.get("trace_id") for line in outcome.log} == {_TRACE}
    assert all(span.began_ns <= span.ended_ns and span.error is None for span in collected.spans)


def test_spans_say_what_they_are_about_by_the_conventions(fleet: Fleet, collected: Collected) -> None:
    outcome = _deploy(fleet, "--run-id", "friday")
    assert outcome.exit_code == 0, outcome.stderr

    root = collected.named("smooth-orchestrate deploy")
    told = {"run_id": "friday", "deploy": "small", "command": "deploy", "outcome": "committed", "databases": 3}
    assert root.attributes == {f"smooth.{key}": value for key, value in told.items()} | {"process.exit.code": 0}
    assert (root.kind, root.resource["service.name"]) == (_INTERNAL, "smooth-orchestrator")
    commit = collected.named(f"COMMIT PREPARED {LAST}")
    about = {"smooth.database": LAST, "db.system.name": "postgresql", "db.operation.name": "COMMIT PREPARED"}
    assert about.items() <= commit.attributes.items()
    [line] = [line for line in outcome.named("database.committed") if line["database"] == LAST]
    assert commit.attributes["smooth.lock_hold_ms"] == line["lock_hold_ms"]
    assert (commit.ended_ns - commit.began_ns) / 1e6 == pytest.approx(line["duration_ms"])
    assert collected.named("COMMIT kiosk").attributes["db.system.name"] == "sqlite"
    migrations = [span for span in collected.spans if span.name == "migrate demo.0002_note"]
    assert [(span.kind, span.attributes["smooth.direction"]) for span in migrations] == [(_CLIENT, "forwards")] * 3
    assert {span.attributes["smooth.database"]: span.attributes["db.system.name"] for span in migrations} == {
        "primary": "postgresql",
        "kiosk": "sqlite",
        LAST: "postgresql",
    }
    # A line of the log leads to the span that it is about.
    for line in outcome.named("migration.applied"):
        [span] = [span for span in migrations if span.span_id == line["span_id"]]
        assert span.attributes["smooth.database"] == line["database"]
    assert len({span.trace_id for span in collected.spans}) == 1


def test_a_failure_is_seen_where_it_was_and_what_was_taken_back_below_the_decision(
    fleet: Fleet, collected: Collected
) -> None:
    (fleet.directory / "project/demo/migrations/0003_broken.py").write_text(
        BROKEN.replace("0001_item", "0002_note").replace("no such kind", "no such \\ud800 kind <script>\\x1b[2J")
    )
    outcome = _deploy(fleet)
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr

    failed = [span for span in collected.spans if span.name == "migrate demo.0003_broken"]
    assert [span.error for span in failed if span.error and "no such" in span.error]
    assert {span.attributes["error.type"] for span in failed if span.error} == {"ValueError"}
    root = collected.named("smooth-orchestrate deploy")
    assert root.error is not None
    assert (root.attributes["process.exit.code"], root.attributes["smooth.outcome"]) == (1, "rolled_back")
    assert collected.named("decide").attributes["smooth.decision"] == "abort"
    assert ("roll back", "smooth-orchestrate deploy") in collected.tree()
    assert ("ROLLBACK primary", "roll back") in collected.tree()


def test_a_wait_for_a_lock_is_a_span_that_names_who_was_waited_for(fleet: Fleet, collected: Collected) -> None:
    fleet.plan(deploy='expand_contract = false\nlock_timeout = "10s"')
    with psycopg.connect(fleet.last.dsn, application_name="shop-v1-web") as blocker:
        pid = blocker.info.backend_pid
        blocker.execute("LOCK TABLE demo_item IN ACCESS SHARE MODE")
        with fleet.running() as run:
            run.wait_for("lock.waiting", database=LAST)
            blocker.rollback()
            assert run.finish().exit_code == 0
    wait = collected.named("lock wait")
    assert wait.attributes["smooth.blockers"] == [f"{pid} shop-v1-web"]
    assert (wait.attributes["db.system.name"], wait.attributes["smooth.database"]) == ("postgresql", LAST)
    assert {parent for name, parent in collected.tree() if name == "lock wait"} <= {
        f"database {LAST}",
        "migrate demo.0002_note",
    }


def test_grpc_is_spoken_where_the_variables_say_so(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-pipeline")
    with collecting_by_grpc() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint)
        assert fleet.run("status", under=["env"]).exit_code == 0
    assert collected.named("smooth-orchestrate status").resource["service.name"] == "shop-pipeline"


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("is_deaf", [False, True], ids=["nobody listens", "nobody answers"])
def test_no_deploy_waits_for_a_collector_that_is_away_which_is_one_warning(
    fleet: Fleet, protocol: str, monkeypatch: pytest.MonkeyPatch, *, is_deaf: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        if not is_deaf:
            listening.close()
        # What has connected is held open until the command has ended.
        outcome = _deploy(fleet)
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        if is_deaf:
            # One question, and the trace.
            assert 1 <= _connections(listening) <= 2
    [warning] = [line for line in outcome.named("log.message") if line["logger"] == "traces"]
    assert (warning["level"], warning["message"]) == (
        "warning",
        "the collector has not answered, and did not get the run's trace",
    )


def test_a_collector_that_takes_its_time_gets_all_that_it_did_before(
    fleet: Fleet, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = threading.Event()
    take = collected.take

    def take_later(request: ExportTraceServiceRequest) -> None:
        # It answers no sooner than the command has nothing left to do but to wait for it.
        answering.wait()
        take(request)

    monkeypatch.setattr(Collected, "take", lambda _self, request: take_later(request))
    with fleet.running() as run:
        run.wait_for("deploy.committed")
        answering.set()
        outcome = run.finish()
    assert [line for line in outcome.named("log.message") if line["logger"] == "traces"] == []
    assert collected.named("smooth-orchestrate deploy").attributes["smooth.outcome"] == "committed"


class _Refuses(BaseHTTPRequestHandler):
    """What a collector says to whoever has no account with it."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_error(401)

    def do_POST(self) -> None:
        """Answer, once all is read."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_error(401)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_collector_that_refuses_the_trace_is_told_of_with_its_reason(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        outcome = fleet.run("status", under=["env"])
        server.shutdown()
    assert outcome.exit_code == 0, outcome.stderr
    [warning] = [line for line in outcome.named("log.message") if line["logger"] == "traces"]
    assert warning["message"].startswith("the collector did not get all of the run's trace: ")
    assert "401" in warning["message"]


def _connections(listening: socket.socket) -> int:
    """Count those that wait to be taken."""
    listening.setblocking(False)  # noqa: FBT003 - the standard library's
    count = 0
    with suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_nothing_is_traced_where_the_variables_say_not_to(
    fleet: Fleet, collected: Collected, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    outcome = fleet.run("status", under=["env"])
    assert outcome.exit_code == 0, outcome.stderr
    assert collected.spans == []
    assert [line for line in outcome.log if "trace_id" in line or line["event"] == "log.message"] == []


def test_what_is_not_sampled_is_not_sent_but_named_in_the_log(
    fleet: Fleet, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    monkeypatch.setenv("TRACEPARENT", f"00-{_TRACE}-{_PARENT}-00")
    outcome = _deploy(fleet)
    assert outcome.exit_code == 0, outcome.stderr
    assert collected.spans == []
    assert {line.get("trace_id") for line in outcome.log} == {_TRACE}
    assert outcome.named("log.message") == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_TRACES_SAMPLER_ARG", "many"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("TRACEPARENT", "00-zz-\u2028-01"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=,=;\x1b"),
    ],
)
def test_variables_that_mean_nothing_fail_no_deploy(
    fleet: Fleet, collected: Collected, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del collected
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    outcome = fleet.run("status", under=["env"])
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["outcome"] == "nothing_to_do"
