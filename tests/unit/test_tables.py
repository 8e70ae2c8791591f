import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.journal.base import RunSummary
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunOutcome
from smooth_orchestrator.tables import WRITERS, table_of, table_of_runs

STARTED = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> | @all #1 `x` [a](b) _em_ \x1b[2J\n\n# head & <!--"
MIGRATION = {
    "migration": "orders.0007_total",
    "expand": ["add column total", "index it"],
    "contract": ["drop column sum"],
    "reversible": True,
    "locks": ["ACCESS EXCLUSIVE on orders_order"],
}


class Tags(HTMLParser):
    """Collects what a browser would take for tags, and for text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """Take note of a tag."""
        del attrs
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        """Take note of text."""
        self.text += data


def _report(*names: str, **extra: object) -> Report:
    database = DatabaseReport(
        database="",
        project="shop",
        alias="default",
        vendor="postgresql",
        phase="fleet",
        tier="two_phase",
        outcome=DatabaseOutcome.UNCHANGED,
        extra=extra,
    )
    return Report(
        command="plan",
        deploy="shop",
        run_id="r1",
        outcome=RunOutcome.NOTHING_TO_DO,
        started_at=STARTED,
        duration_ms=1.0,
        databases=tuple(replace(database, database=name) for name in names),
    )


def test_a_plan_in_markdown_has_a_row_for_each_migration_that_databases_share() -> None:
    names = [f"shard_{number}" for number in range(1000)]

    assert WRITERS["markdown"](table_of(_report(*names, migrations=[MIGRATION]))).splitlines() == [
        "### plan of shop",
        "",
        "- nothing to do, exit 0, run r1",
        "",
        "| phase | databases | tier | migration | expand | contract | reversible | locks |",
        "|---|---|---|---|---|---|---|---|",
        (
            "| fleet | shard_0, shard_1, shard_2, shard_3, shard_4 and 995 more | two_phase | orders.0007_total | "
            "add column total<br>index it | drop column sum | yes | ACCESS EXCLUSIVE on orders_order |"
        ),
    ]


def test_a_status_has_a_row_for_each_database() -> None:
    report = replace(_report("a", "b", pending=["orders.0007_total"], last_run="r0", in_doubt=[]), command="status")

    rows = WRITERS["markdown"](table_of(report)).splitlines()[6:]
    assert rows == [f"| fleet | {name} | unchanged | orders.0007_total |  | r0 |  |" for name in "ab"]


@pytest.mark.parametrize("command", ["plan", "status"])
def test_nothing_in_a_cell_or_a_note_is_taken_for_markup(command: str) -> None:
    hostile = {**MIGRATION, "migration": HOSTILE, "expand": [HOSTILE], "locks": [HOSTILE]}
    report = _report(HOSTILE, migrations=[hostile], pending=[HOSTILE], in_doubt=[HOSTILE], warnings=[HOSTILE])
    table = table_of(replace(report, command=command, errors=(Mistake(HOSTILE, HOSTILE, HOSTILE),)))

    lines = WRITERS["markdown"](table).splitlines()
    assert all(line.count("|") == len(table.columns) + 1 for line in lines if line.startswith("|"))
    assert not re.search(r"<(?!br>)|[@`]|\[|\x1b|(?<!&)#(?!##|#? )", "\n".join(lines))
    browser = Tags()
    browser.feed(WRITERS["html"](table))
    assert {*browser.tags} <= {"h3", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "br"}
    assert "<script>alert(1)</script>" in browser.text


def test_runs_are_a_row_each_and_none_are_no_table() -> None:
    run = RunSummary("r2", "shop", "deploy", "d", STARTED, STARTED, "rolled_back", 1, {"message": "a\nb"})

    assert WRITERS["markdown"](table_of_runs("shop", [run])).splitlines()[-1] == (
        "| r2 | deploy | 2026-03-01T12:00:00+00:00 | rolled_back | 1 | a b |"
    )
    assert WRITERS["html"](table_of_runs("shop", [])) == "<h3>runs of shop</h3>"
