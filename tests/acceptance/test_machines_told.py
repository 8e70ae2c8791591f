"""What is told of a fleet at work: by the lines of its machines, the run's trace, its report and its journal."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.collector import collecting
from tests.support.log_lines import log_lines
from tests.support.machines import FleetOfMachines, fleet_of_machines
from tests.support.postgres_server import PostgresServer
from tests.support.runs import run_in
from tests.support.small_migrations import ITEM, NOTE

pytestmark = pytest.mark.timeout(180)

_COUNT: Final = 4
_TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
_PARENT: Final = "b7ad6b7169203331"


@pytest.fixture
def fleet(pg_server: PostgresServer, tmp_path: Path) -> Iterator[FleetOfMachines]:
    """Databases with a migration pending, and no machine yet."""
    with fleet_of_machines(tmp_path, [pg_server], _COUNT, {"demo.0001_item": ITEM, "demo.0002_note": NOTE}) as fleet:
        yield fleet


def test_machines_are_named_by_spans_and_report_and_name_the_run_and_its_trace_themselves(
    fleet: FleetOfMachines, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = [fleet.start("--concurrency", "1") for _ in range(2)]
    names = {machine.name for machine in machines}
    monkeypatch.setenv("TRACEPARENT", f"00-{_TRACE}-{_PARENT}-01")
    with collecting() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.endpoint)
        # As a process of its own, whose end is part of what is asked here.
        directory, environment = fleet.many.directory, fleet.many.environment
        outcome = run_in(directory, environment, "deploy", "--run-id", "friday", under=["env"])
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr

    had = {entry["database"]: entry["worker"] for entry in outcome.report["databases"]}
    assert {*had.values()} <= names
    counted = [{"worker": name, "databases": count} for name, count in sorted(Counter(had.values()).items())]
    assert outcome.report["workers"] == counted
    of_databases = [span for span in collected.spans if span.name.startswith(("database ", "migrate "))]
    assert len(of_databases) == 2 * _COUNT
    assert {span.trace_id for span in collected.spans} == {_TRACE}
    told = {span.attributes["smooth.database"]: span.attributes["smooth.worker"] for span in of_databases}
    assert told == had
    assert {line["database"]: line["worker"] for line in outcome.named("database.prepared")} == had
    assert fleet.many.run("report").report["workers"] == counted

    for machine in machines:
        machine.drain()
        lines = log_lines(machine.log)
        assert {line["worker"] for line in lines if line["run_id"] == "friday"} <= {machine.name}
        of_the_run = [line["event"] for line in lines if line.get("trace_id") == _TRACE]
        assert of_the_run == ["worker.started", "log.message"]
        assert all(line["run_id"] == "friday" for line in lines if line.get("trace_id") == _TRACE)
        assert [line["project"] for line in lines if line["event"] == "worker.started"][-1] == "one"
