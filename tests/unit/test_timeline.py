import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from smooth_orchestrator.journal import Record, RecordKind
from smooth_orchestrator.timeline import Mark, Span, SpanKind, Timeline, WorkerVersions, timeline_of
from smooth_orchestrator.watching import Timekeeper

STARTED: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
MIGRATION: Final = {"app": "orders", "migration": "0007_total", "direction": "forwards"}


def _event(at_ms: float, event: str, **keys: object) -> dict[str, Any]:
    moment = STARTED + timedelta(milliseconds=at_ms)
    return {"timestamp": moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"), "level": "info", "event": event, **keys}


def _heard(*events: Mapping[str, Any]) -> Timeline:
    watcher = Timekeeper()
    for event in events:
        watcher(event)
    timeline = watcher.timeline(STARTED)
    assert timeline is not None
    return timeline


def _spans(timeline: Timeline, database: str) -> list[tuple[str, float, float, str]]:
    spans = timeline.spans[database]
    return [(str(span.kind), round(span.start_ms, 3), round(span.took_ms, 3), span.label) for span in spans]


def test_a_run_that_is_heard_has_its_work_its_waits_its_migrations_and_its_end() -> None:
    timeline = _heard(
        _event(0, "worker.started", project="shop", pid=1, python="3.13.1", django="6.1", version="0.3.0"),
        _event(1, "deploy.started", command="deploy", databases=["primary"], version="0.3.0"),
        _event(10, "lease.acquired", database="primary", epoch=1),
        _event(12, "migration.started", database="primary", **MIGRATION),
        _event(
            14, "lock.waiting", database="primary", blockers=[{"pid": 7, "application_name": "psql", "query_age_ms": 1}]
        ),
        _event(52, "migration.applied", database="primary", duration_ms=40.0, **MIGRATION),
        _event(60, "database.prepared", database="primary"),
        _event(80, "deploy.decided", decision="commit", scope="deploy"),
        _event(95, "database.committed", database="primary", duration_ms=10.0),
    )

    assert _spans(timeline, "primary") == [
        ("wait", 14, 38, "psql (pid 7)"),
        ("applied", 12, 40, "orders.0007_total"),
        ("work", 10, 50, ""),
        ("held", 60, 35, ""),
        ("committed", 85, 10, ""),
    ]
    assert [(mark.what, mark.scope) for mark in timeline.marks] == [("commit", "deploy")]
    assert timeline.workers == (WorkerVersions("shop", "3.13.1", "6.1", "0.3.0"),)
    assert (timeline.version, timeline.is_whole) == ("0.3.0", True)


def test_what_was_heard_of_earlier_runs_is_none_of_this_one() -> None:
    timeline = _heard(
        _event(0, "database.rolled_back", database="left_behind"),
        _event(1, "deploy.decided", decision="abort", scope="deploy"),
        _event(2, "deploy.started", command="deploy", databases=["primary"]),
        _event(3, "lease.acquired", database="primary", epoch=1),
    )
    assert [*timeline.spans] == ["primary"]
    assert timeline.marks == ()


def test_of_a_database_in_doubt_the_work_that_has_no_end_is_told_up_to_the_last_that_was_heard() -> None:
    timeline = _heard(
        _event(5, "lease.acquired", database="primary", epoch=1),
        _event(9, "migration.failed", database="primary", error={}, **MIGRATION),
    )
    assert _spans(timeline, "primary") == [("failed", 9, 0, "orders.0007_total"), ("work", 5, 4, "")]


def test_a_run_of_which_nothing_was_heard_has_no_timeline() -> None:
    watcher = Timekeeper()
    watcher(_event(0, "deploy.started", command="deploy", databases=[]))
    assert watcher.timeline(STARTED) is None


def test_ten_thousand_migrations_are_kept_and_every_end_of_a_database() -> None:
    watcher = Timekeeper()
    for number in range(300):
        for step in range(50):
            name = {**MIGRATION, "migration": f"{step:04}_step"}
            watcher(_event(number, "migration.applied", database=f"shard_{number}", duration_ms=1.0, **name))
        watcher(_event(number + 1, "database.committed", database=f"shard_{number}"))
    timeline = watcher.timeline(STARTED)
    assert timeline is not None
    assert not timeline.is_whole
    kinds = [span.kind for spans in timeline.spans.values() for span in spans]
    assert kinds.count(SpanKind.APPLIED) == 10_000
    assert kinds.count(SpanKind.COMMITTED) == 300
    assert len(json.dumps(timeline.to_dict())) < 500_000


def test_a_timeline_is_read_back_as_it_was_written() -> None:
    timeline = Timeline(
        spans={
            "primary": [
                Span(SpanKind.WAIT, 2.0, 3.5, "psql (pid 7)"),
                Span(SpanKind.APPLIED, 1.0, 5.0, "orders.0007_total"),
                Span(SpanKind.COMMITTED, 8.0, 0.5),
            ],
            "idle": [],
        },
        marks=(Mark(7.5, "commit", "deploy"),),
        workers=(WorkerVersions("shop", "3.13.1", "6.1", "0.3.0"),),
        version="0.3.0",
    )
    assert Timeline.from_dict(json.loads(json.dumps(timeline.to_dict()))) == timeline


def test_the_records_of_a_run_that_nobody_heard_tell_when_databases_began_held_and_ended() -> None:
    def record(at_ms: float, kind: RecordKind, database: str | None = None, **data: object) -> Record:
        return Record(1, STARTED + timedelta(milliseconds=at_ms), "friday", kind, database, data)

    timeline = timeline_of(
        [
            record(-50, RecordKind.RUN_STARTED),
            record(-40, RecordKind.INTENT, "cut_off"),
            record(0, RecordKind.RUN_STARTED),
            record(10, RecordKind.INTENT, "primary"),
            record(40, RecordKind.HELD, "primary"),
            record(50, RecordKind.DECISION, decision="commit", scope="deploy"),
            record(60, RecordKind.COMMITTED, "primary"),
        ]
    )

    assert _spans(timeline, "primary") == [("work", 10, 30, ""), ("held", 40, 20, ""), ("committed", 60, 0, "")]
    assert [*timeline.spans] == ["primary"]
    assert timeline.marks == (Mark(50.0, "commit", "deploy"),)
    assert not timeline.is_whole
