import base64
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest

from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.page.account import Account
from smooth_orchestrator.page.document import TemplatesMissing, page_of
from smooth_orchestrator.report import DatabaseOutcome, RunError, RunOutcome
from smooth_orchestrator.runbooks import with_runbook
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.timeline import Timeline
from tests.support.pages import DUPLICATE, HOSTILE, MIGRATIONS, committed, failed, hostile

_VOID: Final = {"meta", "input"}


class _Read(HTMLParser):
    """What a page is made of, and what of it a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, and that it is open."""
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that holds nothing."""
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened last, which it must be."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note a text that is read."""
        if not {"style", "script"} & {*self._open}:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All that is read, on one line."""
        return " ".join(" ".join(self.words).split())


def _text(account: Account) -> str:
    return _Read(page_of(account, "deploy.toml")).text


def test_a_page_says_how_the_run_ended_and_what_to_do() -> None:
    text = _text(failed())
    for words in (
        "deploy of shop",
        "Rolled back: every database is as it was before.",
        "20261123T055742-41743cf4",
        "2026-11-23 05:57:42 UTC",
        "Exit code 1",
        "1 failed 4 rolled back",
        "What to do next remove the duplicates",
        "Decided to abort",
        "Python 3.13.1, Django 6.1.2",
        "44d2de802b8d3db46de146cb6daa8fb9bec99d7facb86cf47c4f54945c121ab8",
    ):
        assert words in text


def test_an_operator_is_given_the_commands_that_settle_the_run() -> None:
    account = failed()
    commands = ("smooth-orchestrate recover deploy.toml --commit", "smooth-orchestrate recover deploy.toml --abort")
    report = replace(account.report, outcome=RunOutcome.NEEDS_OPERATOR, settle_with=commands)
    assert f"Settle the run with one of: {' '.join(commands)}" in _text(replace(account, report=report))


@pytest.mark.parametrize("outcome", [RunOutcome.ROLLED_BACK, RunOutcome.REFUSED, RunOutcome.NEEDS_OPERATOR])
def test_a_run_that_has_failed_names_its_page_of_the_runbooks(outcome: RunOutcome) -> None:
    account = failed()
    report = with_runbook(replace(account.report, outcome=outcome))
    text = _text(replace(account, report=report))
    assert f"What such an end means, and what to do step by step: {report.runbook} " in text
    assert "docs/runbooks" not in _text(committed(1))


def test_a_run_that_was_taken_back_since_needs_no_operator_any_more() -> None:
    account = failed()
    commands = ("smooth-orchestrate deploy deploy.toml", "smooth-orchestrate rollback deploy.toml --run r1")
    report = with_runbook(replace(account.report, outcome=RunOutcome.HALTED, settle_with=commands))
    text = _text(replace(account, report=replace(report, since=(("rollback", "r2"),))))
    assert "This run was taken back since, by the run r2." in text
    assert "smooth-orchestrate deploy" not in text
    assert "An operator is needed" not in text
    assert "docs/runbooks" not in text


def test_an_error_shows_all_that_the_terminal_does_and_the_first_cause_comes_first() -> None:
    account = failed()
    later = RunError("WorkerLost", "the worker of shop is gone", database="primary")
    text = _text(
        replace(account, report=replace(account.report, errors=(later, Mistake("phases[0]", "is empty", "fill it"))))
    )
    assert "Errors 3 first cause IntegrityError" in text
    for words in (
        DUPLICATE.message,
        str(DUPLICATE.detail),
        f"Database shards:shard_3 Migration {MIGRATIONS[-1]} Operation {DUPLICATE.operation} At {DUPLICATE.place}",
        "SQLSTATE 23505 unique violation",
        f"Hint {DUPLICATE.hint}",
    ):
        assert words in text
    assert text.index("IntegrityError") < text.index("the worker of shop is gone") < text.index("phases[0] is empty")


def test_an_error_that_many_databases_have_is_shown_once() -> None:
    account = committed(300)
    error = RunError("OperationalError", "the server is away", "57P01")
    databases = tuple(replace(each, outcome=DatabaseOutcome.FAILED, error=error) for each in account.report.databases)
    report = replace(account.report, outcome=RunOutcome.ROLLED_BACK, databases=databases, error=error)
    text = _text(replace(account, report=report))
    assert text.count("the server is away") == 1
    assert "Databases all 300 databases" in text


def test_of_databases_that_waited_in_vain_the_error_is_shown_once_with_all_who_held_the_locks() -> None:
    account = committed(3)
    error = RunError("OperationalError", "canceling statement due to lock timeout", "55P03", MIGRATIONS[0])
    databases = tuple(
        replace(each, error=replace(error, blockers=("nightly export (pid 7)", f"psql (pid {number})")))
        for number, each in enumerate(account.report.databases)
    )
    report = replace(
        account.report, outcome=RunOutcome.ROLLED_BACK, error=databases[0].error, errors=(), databases=databases
    )
    text = _text(replace(account, report=report))
    assert text.count("canceling statement due to lock timeout") == 1
    assert "Lock held by nightly export (pid 7), psql (pid 0), psql (pid 1), psql (pid 2)" in text
    assert "When the lock is free: smooth-orchestrate deploy deploy.toml" in text


def test_a_place_below_this_directory_is_named_from_here_and_the_next_command_names_the_plan() -> None:
    account = failed()
    error = replace(DUPLICATE, place=str(Path.cwd() / "orders/migrations/0006_x.py:10"))
    text = _Read(page_of(replace(account, report=replace(account.report, error=error)), "next week.toml")).text
    assert "At orders/migrations/0006_x.py:10" in text
    assert "When that is mended, try it, which changes nothing: smooth-orchestrate rehearse 'next week.toml'" in text


def test_what_went_back_with_the_migration_that_failed_is_told_too() -> None:
    assert "2 taken back, 1 failed" in _text(failed())


def test_what_waits_for_finalise_is_listed_with_when_it_is_due() -> None:
    account = committed(3)
    text = _text(account)
    assert (
        "1 operation waits for finalise , from 2026-11-24 05:57:42 UTC on: smooth-orchestrate finalise deploy.toml"
        in text
    )
    assert f"{MIGRATIONS[0]} drop column orders_order.sum all 3 databases 2026-11-24 05:57:42 UTC" in text
    done = _text(replace(account, report=replace(account.report, since=(("finalise", "sunday"),))))
    assert "This run was finalised since, by the run sunday." in done


def test_what_an_earlier_run_holds_back_is_not_given_a_date_of_this_one() -> None:
    account = committed(1)
    databases = tuple(replace(each, contract_pending=("old.0001_gone: drop x",)) for each in account.report.databases)
    text = _text(replace(account, report=replace(account.report, databases=databases)))
    assert "held back by an earlier run" in text
    assert "2026-11-24" not in text


def test_a_run_of_which_nobody_wrote_a_timeline_down_has_a_page_without_one() -> None:
    account = replace(failed(), timeline=Timeline(is_whole=False), digest=None)
    read = _Read(page_of(account, "deploy.toml"))
    assert "The journal does not tell when what happened to a database." in read.text
    assert "rect" not in read.tags
    assert read.tags.count("tr") == 6 + 2 * 1 + 4  # the databases, and the two lists of migrations


def test_a_report_without_databases_has_a_page() -> None:
    account = replace(failed(), timeline=Timeline())
    text = _text(replace(account, report=replace(account.report, databases=(), command="check", deploy=None)))
    assert "The report names no database." in text


@pytest.mark.parametrize("is_over", [True, False], ids=["taken back since", "not settled"])
def test_hostile_names_and_texts_are_text(*, is_over: bool) -> None:
    account = hostile()
    since = account.report.since if is_over else ()
    page = page_of(replace(account, report=replace(account.report, since=since)), HOSTILE[0])
    read = _Read(page)
    assert read.text.count(HOSTILE[0]) > 1
    assert (f"step by step: {HOSTILE[0]}" in read.text) is not is_over
    assert read.tags.count("script") == 1
    assert not {"img", "iframe", "textarea", "a:script"} & {*read.tags}
    names = {name for name, _value in read.attributes}
    assert not [name for name in names if name.startswith("on") or name in {"style", "src"}]
    targets = {value for name, value in read.attributes if name == "href"}
    assert all(value is not None and re.fullmatch(r"#\w+", value) for value in targets)
    assert "{{ 7 * 7 }}" in read.text
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]", page
    )
    assert r"\u202eevil" in read.text


def test_the_policy_names_the_very_texts_that_the_page_holds() -> None:
    page = page_of(failed(), "deploy.toml")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        texts = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in texts]
        sources = " ".join(f"'sha256-{each}'" for each in hashes)
        assert f"{tag}-src {sources};" in policy


@pytest.mark.parametrize("migrations", [5, 50])
def test_the_page_of_a_thousand_databases_is_small(migrations: int) -> None:
    account = committed(1_000, migrations=[f"orders.{number:04}_some_longer_name" for number in range(migrations)])
    page = page_of(account, "deploy.toml")
    assert len(page.encode()) < 2_000_000
    read = _Read(page)
    assert read.tags.count("tr") == 1_001 + migrations + 1 + 2
    assert f"{migrations} migrations on all 1000 databases" in read.text


def test_a_thousand_databases_that_each_fail_by_themselves_with_long_texts_have_a_small_page() -> None:
    account = committed(1_000, migrations=[f"orders.{number:04}" for number in range(20)])
    databases = tuple(
        replace(
            each,
            outcome=DatabaseOutcome.FAILED,
            applied=(f"own.{number:04}", *each.applied),
            contract_pending=(f"own.{number:04}: {'drop ' * 200}",),
            error=RunError(
                "DataError", f"{number} {'<&' * 50_000}", hint=f"{number} {'h' * 9_000}", detail="d" * 9_000
            ),
        )
        for number, each in enumerate(account.report.databases)
    )
    page = page_of(replace(account, report=replace(account.report, databases=databases)), "deploy.toml")
    assert len(page.encode()) < 2_000_000
    assert "900 errors more" in _Read(page).text


def test_a_secret_that_was_learnt_since_is_on_no_page() -> None:
    masker = Masker()
    masker.add("ada@example.com")
    page = page_of(failed().masked(masker), "deploy.toml")
    assert "ada@example.com" not in page
    assert "Key (email)=(***) is duplicated." in page


def test_without_jinja2_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(TemplatesMissing, match="jinja2 is not installed"):
        page_of(failed(), "deploy.toml")


def test_a_deploy_imports_nothing_that_makes_pages() -> None:
    program = "import sys, smooth_orchestrator.runner, smooth_orchestrator.cli.execution; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"jinja2", "smooth_orchestrator.page.document"} & {*done.stdout.split()} == set()
