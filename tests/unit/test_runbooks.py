"""Every cause that the program can give has a page of the runbooks, which is there."""

import ast
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from smooth_migrations import errors as worker_errors
from smooth_orchestrator import report
from smooth_orchestrator.journal import base, stored
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome
from smooth_orchestrator.runbooks import BY_CAUSE, BY_CODE, INDEX, LOCKED_OUT, runbook_of, with_runbook
from smooth_orchestrator.settling import told_how_to_settle
from tests.support.runbooks import RUNBOOKS

ROOT: Final = Path(__file__).parents[2]
BEGUN: Final = datetime(2026, 3, 1, tzinfo=UTC)

# What ends a run with another exit code, or stands beside the error that asks for an operator.
OF_NO_DOUBT: Final = {
    "another_environment",
    "discarded",
    "gate_failed",
    "interrupted",
    "jinja2_missing",
    "journal_error",
    "LeaseLost",
    "OtherDatabase",
    "lease_lost",
    "locked",
    "max_lock_hold",
    "needless_accept",
    "not_asked",
    "plan_invalid",
    "refused",
    "rolled_back_elsewhere",
    "run_id_taken",
    "taken_back",
    "unmarked",
}
# What says that a worker, or its server, is away, or is a fault of ours: the index tells them by the report's words.
OF_ANY_KIND: Final = {
    "not_copied",
    "nothing_held",
    "protocol",
    "queue_unreachable",
    "unexpected",
    "unknown_command",
    "worker_cannot_start",
    "worker_error",
    "worker_lost",
}


def _report(*errors: RunError, outcome: RunOutcome = RunOutcome.NEEDS_OPERATOR, command: str = "deploy") -> Report:
    first, *others = errors or (None,)
    databases = [
        DatabaseReport(
            database=f"db{number}",
            project="shop",
            alias="default",
            vendor="postgresql",
            phase="all",
            tier="two_phase",
            outcome=DatabaseOutcome.IN_DOUBT,
            error=error,
        )
        for number, error in enumerate(others)
    ]
    return Report(
        command=command,
        deploy="shop",
        run_id="r1",
        outcome=outcome,
        started_at=BEGUN,
        duration_ms=1.0,
        databases=tuple(databases),
        error=first,
    )


def _kinds_in(path: Path) -> Iterator[str]:
    """Yield the types of the errors that a module makes, where it writes them down as text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            called, first = getattr(node.func, "id", None) or getattr(node.func, "attr", None), node.args[0]
            if called in {"ErrorInfo", "RunError"} and isinstance(first, ast.Constant):
                yield str(first.value)
            elif called in {"ErrorInfo", "RunError"} and isinstance(first, ast.Name) and first.id.isupper():
                yield str(getattr(report, first.id))
        elif isinstance(node, ast.ClassDef):
            yield from (
                str(each.value.value)
                for each in node.body
                if isinstance(each, ast.Assign)
                and [getattr(target, "id", None) for target in each.targets] == ["code"]
                and isinstance(each.value, ast.Constant)
            )


def _every_kind() -> set[str]:
    paths = [
        path
        for package in ("smooth_orchestrator", "smooth_migrations/worker")
        for path in (ROOT / package).rglob("*.py")
    ]
    return {kind for path in paths for kind in _kinds_in(path)}


def test_every_page_that_a_report_can_name_is_there() -> None:
    pages = {INDEX, LOCKED_OUT, *BY_CODE.values(), *BY_CAUSE.values()}
    assert {page for page in pages if not (ROOT / page).is_file()} == set()
    assert {Path(page).parent for page in pages} == {RUNBOOKS.relative_to(ROOT)}


def test_every_page_is_named_by_some_report() -> None:
    named = {Path(page).name for page in (INDEX, LOCKED_OUT, *BY_CODE.values(), *BY_CAUSE.values())}
    # Whoever was killed writes no report.
    assert {path.name for path in RUNBOOKS.glob("*.md")} - named == {"exit-137-killed.md"}


def test_every_cause_that_the_code_gives_has_a_page_or_is_no_doubt() -> None:
    kinds = _every_kind()
    assert kinds - BY_CAUSE.keys() - OF_NO_DOUBT - OF_ANY_KIND == set()
    assert (OF_NO_DOUBT | OF_ANY_KIND) - kinds == set(), "these are not given any more"
    for kind in kinds:
        page = runbook_of(_report(RunError(kind, "no")))
        assert page == BY_CAUSE.get(kind, INDEX)


def test_every_error_of_an_undo_has_a_page() -> None:
    kinds: list[type[Exception]] = [worker_errors.UndoFailed, *worker_errors.UndoFailed.__subclasses__()]
    assert {kind.__name__ for kind in kinds} - BY_CAUSE.keys() == set()


@pytest.mark.parametrize("outcome", RunOutcome)
def test_a_page_is_named_wherever_something_is_to_be_done(outcome: RunOutcome) -> None:
    page = runbook_of(_report(outcome=outcome))
    assert page == BY_CODE.get(outcome.exit_code)
    assert runbook_of(_report(outcome=RunOutcome.ROLLED_BACK, command="recover")) is None


def test_what_keeps_an_undo_from_its_end_is_told_rather_than_why_the_deploy_failed() -> None:
    why = RunError("OperationalError", "the connection is lost")
    assert runbook_of(_report(why)) == "docs/runbooks/exit-4-server-away.md"
    assert runbook_of(_report(why, RunError("UndoFailed", "no"))) == "docs/runbooks/exit-4-not-taken-back.md"
    interrupted = RunError("Interrupted", "by SIGTERM")
    assert runbook_of(_report(interrupted)) == "docs/runbooks/exit-4-interrupted.md"
    assert runbook_of(_report(interrupted, RunError("UndoFailed", "no"))) == "docs/runbooks/exit-4-not-taken-back.md"


@pytest.mark.parametrize("sqlstate", ["55P03", "40P01"])
def test_a_lock_in_the_way_has_a_page_whatever_it_was_in_the_way_of(sqlstate: str) -> None:
    locked = RunError("OperationalError", "no", sqlstate=sqlstate)
    assert runbook_of(_report(locked, outcome=RunOutcome.ROLLED_BACK)) == LOCKED_OUT
    assert runbook_of(_report(locked, RunError("OperationalError", "it stays as it is with db0"))) == LOCKED_OUT
    assert runbook_of(_report(replace(locked, type="UndoFailed"))) == LOCKED_OUT
    assert runbook_of(_report(replace(locked, type="unseen"))) == "docs/runbooks/exit-4-unseen.md"


def test_a_damaged_journal_has_a_page_of_its_own_among_refusals() -> None:
    damaged = _report(RunError(stored.JournalDamaged.code, "no"), outcome=RunOutcome.REFUSED)
    assert with_runbook(damaged).runbook == "docs/runbooks/exit-3-journal-damaged.md"


def test_a_report_says_its_page_and_reads_it_back() -> None:
    told = told_how_to_settle(_report(RunError(base.JournalUnsureError.code, "no")), Path("deploy.toml"))
    assert told.to_dict()["runbook"] == "docs/runbooks/exit-4-server-away.md"
    assert Report.from_dict(told.to_dict()) == told
    assert "runbook" not in _report(outcome=RunOutcome.COMMITTED).to_dict()


def test_nobody_is_told_to_lose_what_nobody_could_look_at() -> None:
    unseen = RunError(report.UNSEEN, "nobody can tell"), RunError(report.WOULD_DISCARD, "1 row of a table")
    plan, command = Path("deploy.toml"), "smooth-orchestrate recover deploy.toml"
    assert told_how_to_settle(_report(*unseen), plan).settle_with == (command,)
    assert told_how_to_settle(_report(unseen[1]), plan).settle_with == (f"{command} --discard-data",)


def test_who_may_have_the_files_is_told_to_use_them_first() -> None:
    gone = replace(_report(RunError(report.FILES_GONE, "no")), settle_with=("--accept a", "--accept b"))
    command = "smooth-orchestrate recover deploy.toml"
    assert told_how_to_settle(gone, Path("deploy.toml")).settle_with == (command, f"{command} --accept a --accept b")
    assert told_how_to_settle(gone, Path("deploy.toml"), ["--accept a"]).settle_with == (
        f"{command} --accept a",
        f"{command} --accept a --accept b",
    )
