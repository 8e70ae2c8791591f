import json
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import structlog

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.described import describe
from smooth_orchestrator.errors import JournalError, PlanInvalid
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import LogFormat, LogLevel, bind_run, configure, get_logger, hearing
from smooth_orchestrator.secrets import Masker
from tests.support.log_lines import log_lines

Log = Callable[[], list[dict[str, object]]]

STEP = {"database": "primary", "app": "orders", "migration": "0007_total", "direction": "forwards"}


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """Put back what `configure` changes in the process."""
    level = logging.root.level
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    yield
    sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(capture=False)
    logging.root.setLevel(level)
    # Those of pytest come and go with each phase of a test; only ours would stay.
    logging.root.handlers = []
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def stream() -> StringIO:
    return StringIO()


@pytest.fixture
def masker() -> Masker:
    return Masker()


@pytest.fixture
def log(stream: StringIO, masker: Masker) -> Log:
    """Set up a JSON log; called, gives its lines."""
    configure(LogFormat.JSON, LogLevel.INFO, stream=stream, masker=masker)
    bind_run("r1", "shop")
    return lambda: log_lines(stream.getvalue())


def test_a_line_begins_with_what_every_line_has(log: Log, stream: StringIO) -> None:
    get_logger().info(EventName.MIGRATION_APPLIED, **STEP, duration_ms=31.0)

    (line,) = log()
    assert list(line)[:5] == ["timestamp", "level", "event", "run_id", "deploy"]
    assert (line["level"], line["event"], line["run_id"], line["deploy"]) == ("info", "migration.applied", "r1", "shop")
    assert stream.getvalue().count("\n") == 1


def test_a_key_without_a_value_is_left_out_unless_every_line_has_it(stream: StringIO, masker: Masker) -> None:
    configure(LogFormat.JSON, LogLevel.INFO, stream=stream, masker=masker)
    get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT", phase=None)

    (line,) = log_lines(stream.getvalue())
    assert "phase" not in line
    assert (line["run_id"], line["deploy"]) == (None, None)


def test_keys_bound_for_a_scope_join_its_lines_alone(log: Log) -> None:
    with structlog.contextvars.bound_contextvars(phase="canary"):
        get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")
    get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")

    assert [line.get("phase") for line in log()] == ["canary", None]


def test_text_with_line_breaks_and_other_scripts_stays_one_line(log: Log, stream: StringIO) -> None:
    text = "one\ntwo\r\u2028 naïve 🐘 \x1b[31m \ud800"
    get_logger().info(EventName.OUTPUT_CAPTURED, stream="stdout", line=text)

    assert log()[0]["line"] == text
    assert len(stream.getvalue().splitlines()) == 1


def test_lines_below_the_level_are_not_written(stream: StringIO, masker: Masker) -> None:
    configure(LogFormat.JSON, LogLevel.WARNING, stream=stream, masker=masker)
    get_logger().info(EventName.RUN_INTERRUPTED, signal="a")
    get_logger().warning(EventName.RUN_INTERRUPTED, signal="b")
    logging.getLogger("asyncpg").info("c")

    assert [line["level"] for line in log_lines(stream.getvalue())] == ["warning"]


def test_a_listener_hears_what_is_complete_and_masked_whatever_is_written(stream: StringIO, masker: Masker) -> None:
    configure(LogFormat.JSON, LogLevel.ERROR, stream=stream, masker=masker)
    bind_run("r1", "shop")
    masker.add("hunter22")
    heard: list[Mapping[str, Any]] = []
    with hearing(heard.append):
        get_logger().debug(EventName.OUTPUT_CAPTURED, stream="stdout", line="a")
        get_logger().info(EventName.OUTPUT_CAPTURED, stream="stdout", line="hunter22")
    get_logger().info(EventName.OUTPUT_CAPTURED, stream="stdout", line="c")

    assert [(event["run_id"], event["line"]) for event in heard] == [("r1", "***")]
    assert stream.getvalue() == ""


def test_a_listener_that_fails_is_told_of_and_hears_no_more(log: Log) -> None:
    def fail(event: Mapping[str, Any]) -> None:
        raise RuntimeError(event["signal"])

    heard: list[Mapping[str, Any]] = []
    with hearing(fail), hearing(heard.append):
        get_logger().info(EventName.RUN_INTERRUPTED, signal="a")
        get_logger().info(EventName.RUN_INTERRUPTED, signal="b")

    assert [(line["event"], line["level"]) for line in log()] == [
        ("log.message", "critical"),
        ("run.interrupted", "info"),
        ("run.interrupted", "info"),
    ]
    assert "'a'" in str(log()[0]["error"])
    assert [event.get("signal") for event in heard] == [None, "a", "b"]


def test_an_error_is_told_with_sqlstate_and_traceback(log: Log) -> None:
    class DatabaseError(Exception):
        sqlstate = "23505"

    wrapper = ValueError("wrapped")
    wrapper.__cause__ = DatabaseError("duplicate key")
    get_logger().error(EventName.MIGRATION_FAILED, **STEP, exc_info=wrapper)

    error = log()[0]["error"]
    assert isinstance(error, dict)
    assert (error["type"], error["message"], error["sqlstate"]) == ("ValueError", "wrapped", "23505")
    assert "DatabaseError: duplicate key" in error["traceback"]


def test_an_error_may_be_given_as_an_exception_or_as_a_workers_words(log: Log) -> None:
    told = ErrorInfo("IntegrityError", "no", causes=(ErrorInfo("OperationalError", "gone", migration="a.0001_x"),))
    get_logger().error(EventName.MIGRATION_FAILED, **STEP, error=told)
    get_logger().error(EventName.MIGRATION_FAILED, **STEP, error=RuntimeError("bug"))

    first, second = (line["error"] for line in log())
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["causes"][0]["migration"] == "a.0001_x"
    assert "RuntimeError: bug" in second["traceback"]


def test_an_error_raised_on_purpose_has_a_code_and_a_hint_and_no_traceback() -> None:
    described = describe(JournalError("cannot open", hint="look"), migration="orders.0007_total")

    assert described == ErrorInfo("journal_error", "cannot open", None, "orders.0007_total", "look", None)


def test_the_members_of_a_group_are_its_causes() -> None:
    described = describe(ExceptionGroup("two", [ValueError("a"), KeyError("b")]))

    assert [cause.type for cause in described.causes] == ["ValueError", "KeyError"]


def test_no_secret_reaches_a_line_whichever_way_it_came(log: Log, stream: StringIO, masker: Masker) -> None:
    masker.add("hunter2")
    get_logger().info(EventName.OUTPUT_CAPTURED, stream="stdout", line="postgres://u:other@h hunter2")
    get_logger().error(EventName.MIGRATION_FAILED, **STEP, error=ValueError("hunter2"))
    logging.getLogger("lib").error("connecting with %r", {"PASSWORD": "other", "x": "hunter2"})

    assert len(log()) == 3
    assert "hunter2" not in stream.getvalue()
    assert "other" not in stream.getvalue()


def test_records_of_the_standard_library_become_lines(log: Log) -> None:
    logging.getLogger("asyncpg.pool").warning("lost %d", 3)
    logging.getLogger("custom").log(logging.WARNING + 5, "between two levels")

    first, second = log()
    assert (first["event"], first["logger"], first["message"]) == ("log.message", "asyncpg.pool", "lost 3")
    assert second["level"] == "warning"


def test_the_file_gets_every_line_as_json_for_its_owner_alone(tmp_path: Path, stream: StringIO, masker: Masker) -> None:
    path = tmp_path / "log.jsonl"
    for _ in range(2):
        configure(LogFormat.CONSOLE, LogLevel.INFO, path, stream=stream, masker=masker)
        get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")

    assert len(log_lines(path.read_text())) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", [".", "missing/log.jsonl", "pipe"])
def test_a_log_file_that_cannot_be_opened_is_a_usage_error_and_leaves_the_log_as_it_was(
    tmp_path: Path, masker: Masker, name: str
) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody reads it
    configure(LogFormat.JSON, LogLevel.INFO, tmp_path / "log", masker=masker)
    with pytest.raises(PlanInvalid, match="--log-file") as caught:
        configure(LogFormat.JSON, LogLevel.INFO, tmp_path / name, masker=masker)
    assert caught.value.exit_code == 2
    get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")
    assert len(log_lines((tmp_path / "log").read_text())) == 1


def test_auto_is_json_unless_the_stream_is_a_terminal(masker: Masker) -> None:
    piped, terminal = StringIO(), Terminal()
    for stream in (piped, terminal):
        configure(LogFormat.AUTO, LogLevel.INFO, stream=stream, masker=masker)
        get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")

    assert len(log_lines(piped.getvalue())) == 1
    assert "run.interrupted" in terminal.getvalue()
    with pytest.raises(json.JSONDecodeError):
        json.loads(terminal.getvalue())


def test_systemds_journal_is_told_the_priority_of_each_line(stream: StringIO, masker: Masker) -> None:
    configure(LogFormat.JOURNALD, LogLevel.DEBUG, stream=stream, masker=masker)
    for level in LogLevel:
        get_logger().log(level.number, EventName.RUN_INTERRUPTED, signal=str(level))

    priorities, lines = zip(*(line.split(">", 1) for line in stream.getvalue().splitlines()), strict=True)
    # Those of syslog(3).
    assert priorities == ("<7", "<6", "<4", "<3", "<2")
    assert [line["signal"] for line in log_lines("\n".join([*lines, ""]))] == [*LogLevel]


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_a_terminal_is_coloured_unless_no_color_is_set(
    masker: Masker, monkeypatch: pytest.MonkeyPatch, no_color: str, *, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    terminal = Terminal()
    configure(LogFormat.CONSOLE, LogLevel.INFO, stream=terminal, masker=masker)
    get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")

    assert ("\x1b[" in terminal.getvalue()) is coloured


def test_a_console_line_shows_keys_and_the_whole_error_and_drives_no_terminal(stream: StringIO, masker: Masker) -> None:
    configure(LogFormat.CONSOLE, LogLevel.INFO, stream=stream, masker=masker)
    bind_run("r1", "shop")
    error = ErrorInfo("IntegrityError", "no\x1b[2J", "23505", hint="mend it", traceback="Traceback\n  line\n")
    get_logger().error(EventName.MIGRATION_FAILED, **STEP, error=error)
    get_logger().info(EventName.OUTPUT_CAPTURED, stream="stdout", line="two words\x1b[2J")
    blocker = {"pid": 4711, "application_name": "nightly", "query_age_ms": 3.0}
    get_logger().warning(EventName.LOCK_WAITING, database="primary", blockers=[blocker])

    lines = stream.getvalue().splitlines()
    assert lines[0].endswith(
        "error    migration.failed database=primary app=orders migration=0007_total direction=forwards"
    )
    assert lines[1:5] == [
        "  IntegrityError (SQLSTATE 23505): no\\x1b[2J",
        "  hint: mend it",
        "  Traceback",
        "    line",
    ]
    assert lines[5].endswith(r"output.captured stream=stdout line='two words\x1b[2J'")
    assert lines[6].endswith("lock.waiting database=primary blockers='pid 4711 (nightly)'")


def test_a_reader_that_went_away_stops_nobody(tmp_path: Path, masker: Masker) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as broken:
        configure(LogFormat.JSON, LogLevel.INFO, tmp_path / "log", stream=broken, masker=masker)
        get_logger().info(EventName.RUN_INTERRUPTED, signal="SIGINT")
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # what is still buffered must go somewhere

    assert len(log_lines((tmp_path / "log").read_text())) == 1


def test_whatever_goes_wrong_in_a_process_every_line_on_stderr_is_an_event() -> None:
    program = """
import asyncio, gc, logging, threading, warnings
from smooth_orchestrator.logs import LogFormat, LogLevel, configure
from smooth_orchestrator.secrets import Masker

configure(LogFormat.JSON, LogLevel.INFO, masker=Masker())
warnings.warn("old", DeprecationWarning, stacklevel=1)
helper = threading.Thread(target=lambda: 1 / 0, name="helper")
helper.start()
helper.join()

class Fails:
    def __del__(self):
        raise KeyError("finaliser")

Fails()

async def forgotten():
    asyncio.get_running_loop().create_future().set_exception(LookupError("nobody looked"))
    gc.collect()

asyncio.run(forgotten())
logging.getLogger("lib").error("%d", "x")
raise RuntimeError("uncaught, password=hunter2")
"""
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", program], capture_output=True, text=True, check=False
    )

    logged = [f"{line['logger']}: {line['message']}" for line in log_lines(ended.stderr)]
    beginnings = [
        "py.warnings: ",
        "threading: uncaught exception in helper",
        "sys: ",
        "asyncio: Future exception was never retrieved",
        "lib: %d ('x',)",
        "sys: uncaught exception",
    ]
    assert [line[: len(start)] for line, start in zip(logged, beginnings, strict=True)] == beginnings
    assert (ended.stdout, ended.returncode) == ("", 1)
    assert "finaliser" in ended.stderr
    assert "hunter2" not in ended.stderr


def test_importing_the_log_module_does_not_wait_for_rich() -> None:
    program = "import sys, smooth_orchestrator.logs, smooth_orchestrator.render; sys.exit('rich' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
