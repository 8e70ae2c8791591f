import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from smooth_orchestrator.errors import PlanInvalid
from smooth_orchestrator.metrics import recorder
from smooth_orchestrator.metrics.exposition import write_file
from smooth_orchestrator.metrics.readings import Heard, readings
from smooth_orchestrator.metrics.table import Metric, labels_of, table_text
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunOutcome
from tests.support.log_lines import log_lines

_PAGE = Path(__file__).parents[2] / "docs/reference/metrics.md"
_BEGAN = datetime(2026, 11, 23, 3, 45, 12, tzinfo=UTC)
_OWN = {"deploy": "shop", "command": "deploy"}


def database(name: str, outcome: DatabaseOutcome, **more: Any) -> DatabaseReport:  # noqa: ANN401 - of `DatabaseReport`
    return DatabaseReport(
        database=name, project="shop", alias=name, vendor=None, phase="all", tier=None, outcome=outcome, **more
    )


def report(
    outcome: RunOutcome, *databases: DatabaseReport, command: str = "deploy", deploy: str | None = "shop"
) -> Report:
    return Report(
        command=command,
        deploy=deploy,
        run_id="r1",
        outcome=outcome,
        started_at=_BEGAN,
        duration_ms=1500.0,
        databases=databases,
    )


_DONE = report(
    RunOutcome.COMMITTED,
    database("a", DatabaseOutcome.COMMITTED, applied=("x.1", "x.2"), lock_hold_ms=31.0),
    database("b", DatabaseOutcome.UNCHANGED, contract_pending=("x.1: drop", "x.2: drop"), lock_hold_ms=12.0),
)


def told(one: Report, *events: Mapping[str, Any]) -> dict[str, float]:
    """Return what a report's metrics are, by name and labels beside those that all have."""
    heard = Heard()
    for event in events:
        heard.hear(event)
    return {" ".join([each.metric, *each.labels[2:]]): each.value for each in readings(one, heard)}


def in_file(path: Path) -> dict[str, dict[tuple[str, ...], float]]:
    """Return what a file tells, by name and by the values of labels in the order of the table."""
    return {
        family.name: {
            tuple(sample.labels[name] for name in labels_of(Metric(family.name))): sample.value
            for sample in family.samples
        }
        for family in text_string_to_metric_families(path.read_text())
    }


def test_the_page_holds_the_table() -> None:
    assert f"\n{table_text()}\n" in _PAGE.read_text()


def test_the_table_is_printed_by_its_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "smooth_orchestrator.metrics"], capture_output=True, text=True, check=True
    )
    assert done.stdout == table_text()


def test_a_report_and_the_events_tell_all_that_there_is_to_tell() -> None:
    values = told(
        _DONE,
        {"event": "migration.applied", "duration_ms": 250.0},
        {"event": "migration.unapplied", "duration_ms": 40.0},
        {"event": "gate.passed", "duration_ms": 1000.0},
        {"event": "gate.failed", "duration_ms": 500.0},
        {"event": "lock.retry"},
        {"event": "lock.retry"},
        {"event": "log.message"},
    )
    ended_s = _BEGAN.timestamp() + 1.5
    outcomes = {
        f"{metric} {outcome}": 0.0
        for metric, all_of_it in ((Metric.RUN_OUTCOME, RunOutcome), (Metric.DATABASES, DatabaseOutcome))
        for outcome in all_of_it
    }
    assert values == outcomes | {
        f"{Metric.RUN_OUTCOME} committed": 1,
        Metric.RUN_EXIT_CODE: 0,
        Metric.RUN_START: _BEGAN.timestamp(),
        Metric.RUN_DURATION: 1.5,
        Metric.LAST_SUCCESS: ended_s,
        Metric.LAST_COMMIT: ended_s,
        f"{Metric.DATABASES} committed": 1,
        f"{Metric.DATABASES} unchanged": 1,
        f"{Metric.MIGRATIONS} applied": 2,
        f"{Metric.MIGRATIONS} unapplied": 0,
        Metric.MIGRATION_LONGEST: 0.25,
        Metric.GATES_DURATION: 1.5,
        Metric.LOCK_HOLD_LONGEST: 0.031,
        Metric.LOCK_RETRIES: 2,
        Metric.CONTRACTS_PENDING: 2,
    }


def test_a_failure_tells_of_no_success_and_a_plan_that_cannot_be_read_of_no_database() -> None:
    values = told(report(RunOutcome.INVALID, deploy=None))
    assert values[Metric.RUN_EXIT_CODE] == 2
    assert {Metric.LAST_SUCCESS, Metric.LAST_COMMIT, Metric.CONTRACTS_PENDING, f"{Metric.DATABASES} failed"} & {
        *values
    } == set()


def test_status_tells_of_this_programs_prepared_transactions_and_of_the_oldest() -> None:
    prepared = [
        {"age_s": 40, "whose": "this_deploy"},
        {"age_s": 90, "whose": "another_deploy"},
        {"age_s": 900, "whose": "another_program"},
    ]
    extra = {"prepared": prepared[:1], "prepared_elsewhere": prepared[1:]}
    one = report(RunOutcome.NOTHING_TO_DO, database("a", DatabaseOutcome.UNCHANGED, extra=extra), command="status")
    values = told(one)
    assert (values[Metric.IN_DOUBT], values[Metric.IN_DOUBT_AGE]) == (2, 90)
    none = report(RunOutcome.NOTHING_TO_DO, database("a", DatabaseOutcome.UNCHANGED, extra={"prepared": []}))
    values = told(none)
    assert (values[Metric.IN_DOUBT], values[Metric.IN_DOUBT_AGE]) == (0, 0)


def test_a_file_keeps_what_others_have_told_and_what_a_failure_does_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "smooth.prom"
    failed = report(RunOutcome.ROLLED_BACK, database("a", DatabaseOutcome.FAILED))
    for each in (_DONE, report(RunOutcome.NOTHING_TO_DO, command="finalise"), failed):
        write_file(path, readings(each, Heard()))

    values = in_file(path)
    assert values[Metric.RUN_EXIT_CODE] == {("shop", "deploy"): 1, ("shop", "finalise"): 0}
    assert values[Metric.LAST_SUCCESS].keys() == {("shop", "deploy"), ("shop", "finalise")}
    assert values[Metric.RUN_OUTCOME][("shop", "deploy", "committed")] == 0
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(
    "before", [b"", b"\xff\x00{", b"other_metric 1\n", b"smooth_orchestrator_databases{"], ids=repr
)
def test_a_file_that_is_none_of_ours_is_replaced_by_a_whole_one(tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "smooth.prom"
    path.write_bytes(before)
    write_file(path, readings(_DONE, Heard()))
    assert in_file(path)[Metric.RUN_EXIT_CODE] == {("shop", "deploy"): 0}


def test_commands_that_end_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "smooth.prom"
    deploys = [f"shop-{number}" for number in range(9)]
    with ThreadPoolExecutor(3) as pool:
        [
            *pool.map(
                lambda name: write_file(path, readings(report(RunOutcome.COMMITTED, deploy=name), Heard())), deploys
            )
        ]
    assert {deploy for deploy, _ in in_file(path)[Metric.RUN_EXIT_CODE]} == {*deploys}


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "smooth.prom"
    path.mkdir()
    with pytest.raises(OSError, match="no regular file"):
        write_file(path, readings(_DONE, Heard()))
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_can_be_read_by_another_account_and_stays_where_and_what_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "smooth.prom"
    target = tmp_path / "textfile" / "smooth.prom"
    target.parent.mkdir()
    path.symlink_to(target)
    strict = os.umask(0o077)
    try:
        write_file(path, readings(_DONE, Heard()))
    finally:
        os.umask(strict)
    assert path.is_symlink()
    assert (in_file(target)[Metric.RUN_EXIT_CODE], stat.S_IMODE(target.stat().st_mode)) == (
        {("shop", "deploy"): 0},
        0o644,
    )

    target.chmod(0o640)
    write_file(path, readings(_DONE, Heard()))
    assert (path.is_symlink(), stat.S_IMODE(target.stat().st_mode)) == (True, 0o640)
    assert [*target.parent.iterdir()] == [target]


def test_what_is_no_file_is_a_mistake_and_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "smooth.prom"
    os.mkfifo(pipe)
    (tmp_path / "linked.prom").symlink_to(pipe)
    for place in (pipe, tmp_path / "linked.prom", tmp_path):
        with pytest.raises(PlanInvalid, match="no file can be made there"):
            recorder(place, None)
    assert pipe.is_fifo()


def test_a_disk_that_is_full_is_one_warning_and_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "smooth.prom"
    write_file(path, readings(_DONE, Heard()))
    before = path.read_bytes()
    program = f"""
import resource
from datetime import UTC, datetime
from pathlib import Path
from smooth_orchestrator.logs import LogFormat, LogLevel, configure
from smooth_orchestrator.metrics import recorder
from smooth_orchestrator.report import Report, RunOutcome
from smooth_orchestrator.secrets import Masker

configure(LogFormat.JSON, LogLevel.INFO, masker=Masker())
telling = recorder(Path({str(path)!r}), None)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
now = datetime.now(UTC)
telling.end(Report(
    command="deploy", deploy="shop", run_id="r2", outcome=RunOutcome.COMMITTED, started_at=now, duration_ms=1.0
))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    [warning] = log_lines(done.stderr)
    assert (warning["level"], warning["logger"]) == ("warning", "metrics")
    assert "File too large" in str(warning["message"])
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_nobody_is_asked_for_metrics_unless_somebody_wants_them() -> None:
    assert recorder(None, None) is None


def test_what_hears_a_deploy_imports_no_prometheus_client() -> None:
    modules = "sys, smooth_orchestrator.metrics, smooth_orchestrator.runner"
    program = f"import {modules}; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env=os.environ, check=False).returncode == 0
