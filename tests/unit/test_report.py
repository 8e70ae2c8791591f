import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.journal import RunSummary
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome, runs_to_dict
from smooth_orchestrator.secrets import Masker

STARTED = datetime(2026, 3, 1, 12, tzinfo=UTC)
ERROR = RunError("IntegrityError", "a row is in the way", "23505", "orders.0007_total", "remove it")


DATABASE = DatabaseReport(
    database="primary",
    project="shop",
    alias="default",
    vendor="postgresql",
    phase="canary",
    tier="held_open",
    outcome=DatabaseOutcome.COMMITTED,
    applied=("orders.0007_total",),
    contract_pending=("orders.0007_total: drop column orders_order.sum",),
    lock_hold_ms=31.0,
)
REPORT = Report(
    command="deploy",
    deploy="shop",
    run_id="r1",
    outcome=RunOutcome.COMMITTED,
    started_at=STARTED,
    duration_ms=812.4,
    databases=(DATABASE,),
)


def test_the_json_is_the_promised_one_in_the_promised_order() -> None:
    promised = (
        '{"version": 1, "command": "deploy", "deploy": "shop", "run_id": "r1", "outcome": "committed", "exit_code": 0,'
        ' "started_at": "2026-03-01T12:00:00.000000Z", "duration_ms": 812.4,'
        ' "databases": [{"database": "primary", "project": "shop", "alias": "default", "vendor": "postgresql",'
        ' "phase": "canary", "tier": "held_open", "outcome": "committed",'
        ' "applied": ["orders.0007_total"], "unapplied": [],'
        ' "contract_pending": ["orders.0007_total: drop column orders_order.sum"],'
        ' "lock_hold_ms": 31.0, "error": null}],'
        ' "error": null, "errors": []}'
    )

    assert json.dumps(REPORT.to_dict()) == promised


def test_an_error_has_the_promised_keys() -> None:
    body = replace(REPORT, error=ERROR, databases=(replace(DATABASE, error=ERROR),)).to_dict()

    promised = {
        "type": "IntegrityError",
        "message": "a row is in the way",
        "sqlstate": "23505",
        "migration": "orders.0007_total",
        "hint": "remove it",
    }
    assert body["error"] == promised
    assert body["databases"][0]["error"] == promised


def test_an_invalid_plans_mistakes_stand_beside_the_error() -> None:
    report = replace(
        REPORT, outcome=RunOutcome.INVALID, deploy=None, databases=(), errors=(Mistake("phases[1]", "no", None),)
    )

    assert report.to_dict()["errors"] == [{"place": "phases[1]", "message": "no", "hint": None}]


@pytest.mark.parametrize(
    ("outcome", "exit_code"),
    [
        ("committed", 0),
        ("nothing_to_do", 0),
        ("not_due", 0),
        ("rolled_back", 1),
        ("invalid", 2),
        ("refused", 3),
        ("needs_operator", 4),
        ("locked", 5),
    ],
)
def test_each_outcome_means_one_exit_code(outcome: str, exit_code: int) -> None:
    assert replace(REPORT, outcome=RunOutcome(outcome)).exit_code == exit_code


def test_every_outcome_has_an_exit_code() -> None:
    assert [outcome.exit_code for outcome in RunOutcome]


def test_a_report_is_read_back_as_it_was() -> None:
    report = replace(
        REPORT,
        outcome=RunOutcome.ROLLED_BACK,
        error=RunError("x", "y", database="primary"),
        errors=(ERROR, Mistake("primary", "unreachable", "start it")),
        databases=(
            replace(DATABASE, error=ERROR, outcome=DatabaseOutcome.FAILED),
            replace(
                DATABASE, vendor=None, tier=None, extra={"tier_reason": "r", "migrations": [{"migration": "a.0001"}]}
            ),
        ),
    )

    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_a_start_in_another_zone_is_told_in_utc() -> None:
    there = STARTED.astimezone(timezone(timedelta(hours=2)))

    assert replace(REPORT, started_at=there).to_dict()["started_at"] == "2026-03-01T12:00:00.000000Z"


def test_a_masked_report_has_no_secret_and_is_otherwise_the_same() -> None:
    masker = Masker()
    masker.add("hunter2")
    report = replace(
        REPORT, error=RunError("x", "cannot use hunter2"), errors=(Mistake("primary", "hunter2", "not hunter2"),)
    )

    masked = report.masked(masker)

    assert "hunter2" not in json.dumps(masked.to_dict())
    assert masked.databases == report.databases
    assert masked.error == RunError("x", "cannot use ***")


def test_a_workers_error_loses_its_traceback() -> None:
    info = ErrorInfo(
        "IntegrityError", "no", "23505", "orders.0007_total", "hint", "Traceback …", (ErrorInfo("a", "b"),)
    )

    error = RunError.of(info, database="primary")

    assert error == RunError("IntegrityError", "no", "23505", "orders.0007_total", "hint", "primary")


def test_runs_are_reports_without_databases() -> None:
    ended = RunSummary("r2", "shop", "deploy", "d", STARTED, STARTED + timedelta(seconds=1.5), "committed", 0)
    begun = RunSummary("r3", "shop", "deploy", "d", STARTED)

    body = runs_to_dict([begun, ended])

    assert (body["version"], body["command"]) == (1, "runs")
    assert [run["run_id"] for run in body["runs"]] == ["r3", "r2"]
    assert set(body["runs"][1]) | {"databases", "errors"} == set(REPORT.to_dict())
    assert (body["runs"][1]["outcome"], body["runs"][1]["duration_ms"]) == ("committed", 1500)
    assert (body["runs"][0]["outcome"], body["runs"][0]["exit_code"], body["runs"][0]["duration_ms"]) == (None,) * 3
