import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest
import structlog

import smooth_orchestrator
from smooth_orchestrator.cli import deploying, execution, main
from smooth_orchestrator.errors import JournalError, Locked, Mistake, PlanInvalid, Refused, SmoothError
from smooth_orchestrator.report import RunOutcome
from tests.support.fake_runner import FakeRunner
from tests.unit.bad_plans import BadPlan, make
from tests.unit.bad_plans.base import HEAD, PRIMARY, PROJECT

PLAN = HEAD + PROJECT + 'env = { SHOP_KEY = "open-sesame" }\n' + PRIMARY
MIGRATION = {
    "migration": "orders.0007_total",
    "expand": ["add column total"],
    "contract": ["drop column sum"],
    "reversible": False,
    "locks": ["ACCESS EXCLUSIVE on orders_order"],
}


class UnreadyError(SmoothError):
    """One after which an operator is needed."""

    exit_code = 4


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Put back what setting up the log changes in the process."""
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    level = logging.root.level
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)
    logging.root.setLevel(level)
    logging.root.handlers = []
    structlog.reset_defaults()


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    fake = FakeRunner()
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    monkeypatch.setattr(smooth_orchestrator, "runner", fake, raising=False)
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> str:
    return str(make(BadPlan("", PLAN, ()), tmp_path))


@pytest.mark.parametrize("command", ["deploy", "plan", "check", "status"])
def test_a_command_runs_its_coroutine_under_the_id_that_was_asked_for(
    runner: FakeRunner, plan: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, plan, "--run-id", "release-7", "--json", "--no-progress"]) == 0
    assert runner.asked == [(command, "release-7")]
    assert json.loads(capsys.readouterr().out)["command"] == command


def test_a_deploy_replays_unless_it_is_told_not_to(runner: FakeRunner, plan: str) -> None:
    for options, replays in (([], True), (["--no-replay"], False)):
        assert (main(["deploy", plan, *options]), main([plan, *options])) == (0, 0)
        assert runner.given == {"replays": replays}


def test_a_plan_alone_is_deployed_under_a_new_id(runner: FakeRunner, plan: str) -> None:
    assert (main([plan]), main([plan])) == (0, 0)
    (first, first_id), (second, second_id) = runner.asked
    assert first == second == "deploy"
    assert first_id != second_id


def test_a_mistyped_command_is_not_taken_for_a_plan(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["staus", plan]) == 2
    assert 'Did you mean "status"?' in capsys.readouterr().err
    assert runner.asked == []


def test_a_command_that_is_not_there_is_not_taken_for_a_plan(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rewind", plan]) == 2
    assert 'There is no command, and no plan, "rewind".' in capsys.readouterr().err
    assert runner.asked == []


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "../x", "ü"])
def test_a_run_id_that_cannot_be_a_name_is_a_usage_error(runner: FakeRunner, plan: str, name: str) -> None:
    assert main(["deploy", plan, "--run-id", name]) == 2
    assert runner.asked == []


@pytest.mark.parametrize("names", ["", " ", ",", " , "])
def test_projects_of_a_worker_that_name_none_are_a_usage_error(
    plan: str, names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", plan, "--projects", names]) == 2
    assert capsys.readouterr().err.endswith(
        "\nError: Invalid value for '--projects': names no project; leave it out to serve all\n"
    )


@pytest.mark.parametrize("words", [["deploy"], ["deploy", "PLAN", "--bogus"], ["plan", "PLAN", "more"], ["--bogus"]])
def test_a_usage_error_exits_2_and_is_a_report_with_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert "Error: " in capsys.readouterr().err
    assert main([*words, "--json"]) == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["outcome"], [error["place"] for error in report["errors"]]) == ("invalid", ["command line"])


@pytest.mark.parametrize("chosen", [["--format", "json"], ["--format=json"]], ids=" ".join)
def test_a_usage_error_is_a_report_also_with_the_other_name_of_json(
    chosen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "PLAN", *chosen, "--bogus"]) == 2
    written = capsys.readouterr()
    assert (written.err, json.loads(written.out)["outcome"]) == ("", "invalid")


def test_an_interruption_before_anything_was_begun_is_a_report_with_json(
    monkeypatch: pytest.MonkeyPatch, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt("SIGTERM")

    monkeypatch.setattr(deploying, "run_command", interrupted)

    assert main(["rollback", plan, "--json", "--log-format", "json"]) == 1
    written = capsys.readouterr()
    assert written.err == ""
    report = json.loads(written.out)
    assert (report["command"], report["outcome"], report["exit_code"]) == ("rollback", "rolled_back", 1)
    assert report["error"]["type"] == "Interrupted"
    assert main(["rollback", plan]) == 1
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_signal_that_compiled_code_has_swallowed_is_obeyed_before_anything_is_begun(
    runner: FakeRunner, monkeypatch: pytest.MonkeyPatch, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallow(_path: Path) -> tuple[str, ...]:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return ()

    monkeypatch.setattr(execution, "doubts", swallow)

    assert main(["deploy", plan, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "interrupted by SIGTERM"
    assert runner.asked == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (PlanInvalid([Mistake("phases[0]", "is empty")]), RunOutcome.INVALID),
        (Refused("no", findings=[Mistake("primary", "is away")]), RunOutcome.REFUSED),
        (Locked("another run"), RunOutcome.LOCKED),
        (JournalError("cannot be opened"), RunOutcome.REFUSED),
        (SmoothError("failed"), RunOutcome.ROLLED_BACK),
        (UnreadyError("in doubt"), RunOutcome.NEEDS_OPERATOR),
        (ExceptionGroup("tasks", [ExceptionGroup("inner", [Locked("another run")])]), RunOutcome.LOCKED),
        (ExceptionGroup("tasks", [Locked("another run"), UnreadyError("in doubt")]), RunOutcome.NEEDS_OPERATOR),
        (ExceptionGroup("tasks", [Locked("another run"), ValueError("x")]), RunOutcome.NEEDS_OPERATOR),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_becomes_a_report_with_its_exit_code(
    runner: FakeRunner, plan: str, error: Exception, outcome: RunOutcome, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.error = error
    assert main(["deploy", plan, "--json"]) == outcome.exit_code
    report = json.loads(capsys.readouterr().out)
    assert (report["outcome"], report["deploy"]) == (outcome, "shop")
    assert report["error"] or report["errors"]


def test_the_findings_of_a_refusal_are_its_errors(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.error = Refused("preflight failed", findings=[Mistake("primary", "is away", "start it")])
    assert main(["check", plan, "--json"]) == 3
    report = json.loads(capsys.readouterr().out)
    assert report["error"]["message"] == "preflight failed"
    assert report["errors"] == [{"place": "primary", "message": "is away", "hint": "start it"}]


def test_an_unexpected_error_is_one_masked_log_line_and_exit_4(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.error = RuntimeError("lost open-sesame")
    assert main(["deploy", plan, "--run-id", "r1"]) == 4
    output = capsys.readouterr()
    line = json.loads(output.err)
    assert (line["level"], line["event"], line["run_id"]) == ("critical", "log.message", "r1")
    assert "RuntimeError" in line["error"]["traceback"]
    assert "lost ***" in output.out
    assert "open-sesame" not in output.out + output.err
    assert "Traceback" not in output.out


def test_runs_are_listed_as_text_and_as_json_without_secrets(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["runs", plan]) == 0
    text = capsys.readouterr().out
    assert main(["runs", plan, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["error"] == {"message": "***"}
    assert "r1" in text
    assert "open-sesame" not in text
    assert [command for command, _ in runner.asked] == ["runs", "runs"]


@pytest.mark.parametrize(("words", "run_id"), [([], None), (["--run", "r1"], "r1")])
def test_report_asks_for_the_run_named_or_for_the_last(
    runner: FakeRunner, plan: str, words: list[str], run_id: str | None
) -> None:
    assert main(["report", plan, *words]) == 0
    assert runner.asked == [("report", run_id)]


@pytest.mark.parametrize("command", ["plan", "status", "runs"])
def test_what_is_shown_can_be_asked_for_in_another_format(
    runner: FakeRunner, plan: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.extra = {"migrations": [MIGRATION], "pending": ["orders.0007_total"], "warnings": ["open-sesame"]}
    written = {}
    for form in ("text", "markdown", "json", "html"):
        assert main([command, plan, "--run-id", "r1", "--format", form]) == 0
        written[form] = capsys.readouterr().out
    assert main([command, plan, "--run-id", "r1", "--json"]) == 0

    assert capsys.readouterr().out == written["json"]
    assert json.loads(written["json"])["command"] == command
    assert written["markdown"].startswith(f"### {command} of ")
    assert written["html"].startswith(f"<h3>{command} of ")
    assert "open-sesame" not in "".join(written.values())


def test_the_text_of_plan_names_tier_reason_and_every_half(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.extra = {"tier_reason": "DDL is transactional", "migrations": [MIGRATION], "warnings": ["readers wait"]}
    assert main(["plan", plan]) == 0
    assert capsys.readouterr().out.endswith(
        """
primary  held_open  DDL is transactional
  orders.0007_total  (not reversible)
    expand: add column total
    contract: drop column sum
    lock: ACCESS EXCLUSIVE on orders_order
  warning: readers wait
"""
    )


def test_the_text_of_status_names_what_is_pending_and_in_doubt(
    runner: FakeRunner, plan: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runner.extra = {
        "pending": ["orders.0007_total"],
        "last_run": {"run_id": "r1", "outcome": None},
        "in_doubt": ["smooth-1"],
    }
    assert main(["status", plan]) == 0
    assert capsys.readouterr().out.endswith(
        "\nprimary  held_open\n  pending: orders.0007_total\n  last run: run_id r1\n  in doubt: smooth-1\n"
    )


def test_a_log_file_that_cannot_be_opened_is_a_usage_error(
    runner: FakeRunner, plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", plan, "--json", "--log-file", str(tmp_path)]) == 2
    assert json.loads(capsys.readouterr().out)["errors"][0]["place"] == "--log-file"
    assert runner.asked == []


def test_schema_prints_the_schema_of_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert "deploy" in json.loads(capsys.readouterr().out)["properties"]


def test_help_names_the_commands_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    section = capsys.readouterr().out.partition("Commands:\n")[2].partition("\n\n")[0]
    names = [line.split()[0] for line in section.splitlines()]
    assert names == [
        "deploy",
        "plan",
        "check",
        "rehearse",
        "finalise",
        "rollback",
        "recover",
        "status",
        "runs",
        "report",
        "lint",
        "init",
        "worker",
        "schema",
        "failpoints",
    ]


def test_a_reader_that_went_away_does_not_change_the_exit_code(plan: str) -> None:
    program = f"import sys; from smooth_orchestrator.cli import main; sys.exit(main(['plan', {plan + 'x'!r}]))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 2


def test_a_reader_of_the_log_that_went_away_does_not_change_the_exit_code(tmp_path: Path) -> None:
    plan = tmp_path / "deploy.toml"
    plan.write_text("version = 2\n")
    plan.chmod(0o666)  # of which the log warns
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "smooth_orchestrator", "plan", str(plan)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=writing, text=True, check=False)
    os.close(writing)
    assert (done.returncode, "this program reads version 1" in done.stdout) == (2, True)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
@pytest.mark.parametrize("words", [["plan", "none.toml"], ["plan", "none.toml", "--json"], ["plan"]], ids=" ".join)
def test_a_stream_that_is_closed_or_full_does_not_change_the_exit_code(
    words: list[str], redirection: str, tmp_path: Path
) -> None:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "smooth_orchestrator", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("chosen", [["--log-format", "json"], ["--log-format=json"]], ids=" ".join)
@pytest.mark.parametrize("words", [["deploy"], ["deploy", "none.toml", "--rum-id", "one"], ["deplyo"]], ids=" ".join)
def test_a_usage_error_is_no_line_of_a_json_log(words: list[str], chosen: list[str]) -> None:
    command = [sys.executable, "-m", "smooth_orchestrator", *words, *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("command line\n  ")


def test_help_that_cannot_be_written_is_said_in_one_line() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "smooth_orchestrator", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "stdout: No space left on device\n")


@pytest.mark.usefixtures("runner")
def test_a_caller_gets_its_signals_back(plan: str) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert main(["deploy", plan]) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
