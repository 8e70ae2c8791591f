import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from smooth_orchestrator.cli.watchers import all_at_work, tell_all
from smooth_orchestrator.logs import hearing
from smooth_orchestrator.report import Report, RunOutcome

REPORT = Report(
    command="deploy",
    deploy="shop",
    run_id="r1",
    outcome=RunOutcome.COMMITTED,
    started_at=datetime(2026, 11, 23, tzinfo=UTC),
    duration_ms=1.0,
)


class Meeting:
    """A watcher that takes note of a report once the others do so, too."""

    def __init__(self, others: threading.Barrier) -> None:
        self._others = others
        self.reports: list[Report] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hear nothing."""
        yield

    def end(self, report: Report) -> None:
        """Wait for the others."""
        self._others.wait(timeout=10)
        self.reports.append(report)


class Failing(Meeting):
    """One that then fails."""

    def end(self, report: Report) -> None:
        """Wait for the others, and fail."""
        super().end(report)
        raise RuntimeError("out of order")


def test_watchers_are_told_all_at_once_and_one_that_fails_is_a_warning() -> None:
    others = threading.Barrier(3)
    watchers = [Meeting(others), Failing(others), Meeting(others)]
    heard: list[str] = []
    with all_at_work(watchers), hearing(lambda event: heard.append(f"{event['message']}: {event['error']['message']}")):
        tell_all(watchers, REPORT)
    assert [each.reports for each in watchers] == [[REPORT]] * 3
    assert heard == ["a watcher failed: out of order"]


def test_what_speaks_to_those_who_are_away_is_not_imported() -> None:
    program = """
import sys
from smooth_orchestrator import leisure
from smooth_orchestrator.cli.watchers import all_at_work, tell_all
from smooth_orchestrator.logs import get_logger, hearing
from smooth_orchestrator.metrics import recorder
from smooth_orchestrator.traces import tracer_of
from tests.unit.test_watchers import REPORT

url = sys.argv[1]
watchers = [tracer_of("deploy", {"OTEL_EXPORTER_OTLP_ENDPOINT": url}), recorder(None, url)]
warnings = []
with all_at_work(watchers), hearing(lambda event: warnings.append(event["message"])):
    leisure.begin()
    get_logger().info("log.message", logger="x", message="")
    tell_all(watchers, REPORT)
print(*sorted(warnings[1:]), sep="\\n")
sys.exit(bool({"opentelemetry.sdk", "requests", "prometheus_client"} & sys.modules.keys()))
"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", program, url],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "the Pushgateway did not get the metrics: <urlopen error [Errno 111] Connection refused>",
        "the collector has not answered, and did not get the run's trace",
    ]
