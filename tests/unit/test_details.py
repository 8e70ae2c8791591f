import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any, Final

import pytest

from smooth_orchestrator.cli.details import print_details
from smooth_orchestrator.render import print_report
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunOutcome

MIGRATION: Final[Mapping[str, Any]] = {
    "migration": "orders.0007_total",
    "expand": ["add column total"],
    "contract": [],
    "reversible": True,
    "locks": ["ACCESS EXCLUSIVE on orders_order"],
}
_PAINT: Final = re.compile("\x1b\\[[0-9;]*m")
OTHER: Final = {**MIGRATION, "migration": "orders.0008_paid"}


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def _planned(*migrations: list[Mapping[str, Any]]) -> Report:
    return Report(
        command="plan",
        deploy="shop",
        run_id="r1",
        outcome=RunOutcome.NOTHING_TO_DO,
        started_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        duration_ms=812.4,
        databases=tuple(
            DatabaseReport(
                database=f"shards:shard_{number}",
                project="shop",
                alias=f"shard_{number}",
                vendor="postgresql",
                phase="fleet",
                tier="two_phase",
                outcome=DatabaseOutcome.UNCHANGED,
                extra={"tier_reason": "PostgreSQL can prepare", "migrations": each},
            )
            for number, each in enumerate(migrations)
        ),
    )


def _details(report: Report, stream: StringIO) -> list[str]:
    print_details(report, stream)
    return stream.getvalue().splitlines()


def test_what_many_databases_have_in_common_is_told_once_with_a_few_of_their_names_on_a_terminal() -> None:
    report = _planned(*[[MIGRATION]] * 1_000, [OTHER], [])
    first = [f"shards:shard_{number}" for number in range(5)]
    assert _details(report, Terminal()) == [
        "",
        f"1000 databases: {', '.join(first)} and 995 more  two_phase  PostgreSQL can prepare",
        "  orders.0007_total",
        "    expand: add column total",
        "    lock: ACCESS EXCLUSIVE on orders_order",
        "",
        "shards:shard_1000  two_phase  PostgreSQL can prepare",
        "  orders.0008_paid",
        "    expand: add column total",
        "    lock: ACCESS EXCLUSIVE on orders_order",
    ]


def test_a_pipe_is_told_of_each_database_by_itself() -> None:
    lines = _details(_planned(*[[MIGRATION]] * 30), StringIO())
    titles = [line for line in lines if line.startswith("shards:")]
    assert titles == [f"shards:shard_{number}  two_phase  PostgreSQL can prepare" for number in range(30)]
    assert lines.count("    expand: add column total") == 30


def test_databases_of_another_tier_are_told_apart() -> None:
    report = _planned([MIGRATION], [MIGRATION])
    first, second = report.databases
    lines = _details(replace(report, databases=(first, replace(second, tier="held_open"))), Terminal())
    assert [line for line in lines if line.startswith("shards:")] == [
        "shards:shard_0  two_phase  PostgreSQL can prepare",
        "shards:shard_1  held_open  PostgreSQL can prepare",
    ]


def test_the_table_of_a_plan_of_many_databases_is_a_screen_on_a_terminal_and_whole_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "120")
    report = _planned(*[[MIGRATION]] * 1_000)
    failed = replace(report.databases[7], tier=None, outcome=DatabaseOutcome.FAILED)
    report = replace(report, databases=(*report.databases[:7], failed, *report.databases[8:]))
    brief, whole = Terminal(), StringIO()
    print_report(report, brief)
    print_report(report, whole)
    rows = [" ".join(line.split()) for line in _PAINT.sub("", brief.getvalue()).splitlines()]
    assert rows[-3:] == [
        "database phase tier outcome",
        f"{', '.join(f'shards:shard_{number}' for number in range(5))} and 994 more fleet two_phase unchanged",
        "shards:shard_7 fleet failed",
    ]
    assert sum("shards:shard_" in line for line in whole.getvalue().splitlines()) == 1_000
