"""What is stuck on a database, by its own journal and by the runs that are still to be settled."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from smooth_migrations.protocol import Left, Step
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome
from smooth_orchestrator.stuck import stuck_on, stuck_words

NOTE: Final = Step("demo", "0002_note")
ERROR: Final = RunError("UndoFailed", "demo.0002_note could not be taken back: no\nand more")
DATABASE: Final = DatabaseReport(
    database="a",
    project="shop",
    alias="default",
    vendor="postgresql",
    phase="all",
    tier="compensated",
    outcome=DatabaseOutcome.IN_DOUBT,
    error=ERROR,
)
ASKED: Final = Report(
    command="deploy",
    deploy="shop",
    run_id="r1",
    outcome=RunOutcome.NEEDS_OPERATOR,
    started_at=datetime(2026, 3, 1, tzinfo=UTC),
    duration_ms=1.0,
    databases=(DATABASE,),
)


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (Left("r1", (NOTE,), is_being_undone=True), "stuck: to be taken back: demo.0002_note (run r1)"),
        (Left("r1", (NOTE,)), "stuck: moved for good, and not settled: demo.0002_note (run r1)"),
        (Left("r1", is_undone=True), "stuck: taken back, and the schema is not as it was before (run r1)"),
        (None, "stuck: not settled (run r1)"),
    ],
    ids=["going back", "moved", "schema", "report alone"],
)
def test_what_is_stuck_is_told_in_a_line_with_why_and_the_page(left: Left | None, words: str) -> None:
    told = [*stuck_words(stuck_on("a", left, {"r1": ASKED}))]
    why = "why: demo.0002_note could not be taken back: no"
    assert told == [words, why, "what to do: docs/runbooks/exit-4-not-taken-back.md"]


def test_a_way_back_is_told_where_no_run_tells_of_it() -> None:
    found = stuck_on("a", Left("r0", (NOTE,), is_being_undone=True), {"r1": ASKED})
    assert found == {"run_id": "r0", "state": "going_back", "steps": ["demo.0002_note"], "error": None, "runbook": None}


def test_a_database_that_is_settled_or_at_work_is_not_stuck() -> None:
    settled = replace(ASKED, databases=(replace(DATABASE, outcome=DatabaseOutcome.ROLLED_BACK),))
    assert stuck_on("a", None, {"r1": settled}) is None
    assert stuck_on("b", None, {"r1": ASKED}) is None
    assert stuck_on("b", Left("r2", (NOTE,)), {"r1": ASKED}) is None
    assert [*stuck_words(None)] == []


def test_an_error_without_a_word_is_told_by_its_type() -> None:
    wordless = replace(ASKED, databases=(replace(DATABASE, error=RunError("ValueError", "")),))
    assert "why: ValueError" in [*stuck_words(stuck_on("a", None, {"r1": wordless}))]
