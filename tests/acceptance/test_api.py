import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
import structlog

from smooth_orchestrator import api
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from tests.support.deploys import GATE_WAITS, LAST, Fleet, small_fleet
from tests.support.log_lines import log_lines
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE, failing

Event = Mapping[str, Any]
PAGE: Final = (Path(__file__).parents[2] / "docs/how-to/use-from-python.md").read_text(encoding="utf-8")
_FAILS_LAST: Final = failing("if editor.connection.alias == 'shard_1': raise ValueError('no such kind')")


@pytest.fixture
def fleet(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """Three databases before a release that gives them a column `note`."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        for name, value in fleet.environment.items():
            monkeypatch.setenv(name, value)
        yield fleet


def _plan(fleet: Fleet) -> Path:
    return fleet.directory / "deploy.toml"


def _has_note(fleet: Fleet) -> set[str]:
    return {name for name, text in fleet.dumps().items() if "note" in text}


async def test_a_deploy_is_reported_and_each_event_is_told_as_the_log_shows_it(fleet: Fleet) -> None:
    heard: list[Event] = []
    done = await api.deploy(_plan(fleet), run_id="friday", on_event=heard.append)
    assert (done.outcome, done.exit_code, done.run_id) == (api.RunOutcome.COMMITTED, 0, "friday")
    outcomes = {each.database: each.outcome for each in done.databases}
    assert outcomes == dict.fromkeys(("primary", "kiosk", LAST), api.DatabaseOutcome.COMMITTED)
    assert len(_has_note(fleet)) == 3
    # Checked against the published schema.
    log_lines("".join(f"{json.dumps(dict(event))}\n" for event in heard))
    assert {(event["run_id"], event["deploy"]) for event in heard} == {("friday", "small")}
    names = [event["event"] for event in heard]
    assert (names.count("migration.applied"), names[-1]) == (3, "deploy.committed")

    again = await api.deploy(_plan(fleet), run_id="friday")
    assert again.outcome is api.RunOutcome.NOTHING_TO_DO
    assert (await api.report(_plan(fleet), run="friday")).to_dict() == done.to_dict()
    newest, *_ = await api.runs(_plan(fleet))
    assert newest.run_id == "friday"


async def test_every_command_of_a_deploys_life_can_be_called(fleet: Fleet) -> None:
    file = api.load(_plan(fleet), fleet.environment)
    looked = [await api.plan(file), await api.check(file), await api.status(file)]
    assert [each.outcome for each in looked] == [api.RunOutcome.NOTHING_TO_DO] * 3
    assert looked[0].databases[0].extra["migrations"][0]["migration"] == "demo.0002_note"
    assert looked[2].databases[0].extra["pending"] == ["demo.0002_note"]
    assert (await api.rehearse(file)).exit_code == 0
    assert _has_note(fleet) == set()
    assert (await api.deploy(file, replay=False)).outcome is api.RunOutcome.COMMITTED
    assert (await api.rollback(file)).outcome is api.RunOutcome.COMMITTED
    assert _has_note(fleet) == set()
    assert (await api.recover(file)).outcome is api.RunOutcome.NOTHING_TO_DO
    assert (await api.finalise(file)).outcome is api.RunOutcome.NOTHING_TO_DO


async def test_a_deploy_that_fails_is_no_error_but_a_report(fleet: Fleet) -> None:
    (fleet.directory / "project/demo/migrations/0003_fails.py").write_text(_FAILS_LAST)
    before = fleet.dumps()
    done = await api.deploy(str(_plan(fleet)))
    assert (done.outcome, done.exit_code) == (api.RunOutcome.ROLLED_BACK, 1)
    assert done.error
    assert (done.error.database, done.error.type) == (LAST, "ValueError")
    fleet.wait_until_alone()
    assert fleet.dumps() == before


async def test_what_a_user_is_to_mend_is_raised(fleet: Fleet, tmp_path: Path) -> None:
    with pytest.raises(api.PlanInvalid, match="does not exist"):
        await api.deploy(tmp_path / "none.toml")
    with pytest.raises(api.PlanInvalid, match="run_id"):
        await api.deploy(_plan(fleet), run_id="not a name")
    with pytest.raises(api.Refused, match="holds no finished run 'none'"):
        await api.report(_plan(fleet), run="none")
    plan = _plan(fleet).read_text().replace('"small_settings"', '"no_such_settings"')
    (fleet.directory / "other.toml").write_text(plan)
    with pytest.raises(api.WorkerError, match="no_such_settings") as raised:
        await api.check(fleet.directory / "other.toml")
    assert raised.value.exit_code == 3


async def test_an_error_tells_no_secret(fleet: Fleet) -> None:
    settings = fleet.directory / "project/small_settings.py"
    settings.write_text(settings.read_text() + "raise RuntimeError('no such key: open-sesame')\n")
    plan = _plan(fleet).read_text().replace("env = { ", 'env = { SHOP_KEY = "open-sesame", ')
    _plan(fleet).write_text(plan)
    with pytest.raises(api.WorkerError, match=r"no such key: \*\*\*") as raised:
        await api.deploy(_plan(fleet))
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)


async def test_of_two_at_once_the_second_is_told_of_the_first_and_a_look_is_not_in_its_way(fleet: Fleet) -> None:
    fleet.plan(shards=GATE_WAITS)
    at_gate = anyio.Event()
    reports: list[api.Report] = []

    def hear(event: Event) -> None:
        if event["event"] == "gate.started":
            at_gate.set()

    async def first() -> None:
        reports.append(await api.deploy(_plan(fleet), run_id="first", on_event=hear))

    heard: list[Event] = []
    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await at_gate.wait()
        with pytest.raises(api.Locked) as raised:
            await api.deploy(_plan(fleet), on_event=heard.append)
        looked = await api.status(_plan(fleet), on_event=heard.append)
        (fleet.directory / "go").touch()
    assert raised.value.exit_code == 5
    assert looked.databases[1].extra["pending"] is not None
    assert "first" not in {event["run_id"] for event in heard}
    assert [report.outcome for report in reports] == [api.RunOutcome.COMMITTED]


class _Traces:
    """What a program has set up for itself in its process."""

    def __init__(self) -> None:
        self.seen = (
            [*logging.root.handlers],
            logging.root.level,
            (sys.excepthook, sys.unraisablehook, threading.excepthook),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
            signal.pthread_sigmask(signal.SIG_BLOCK, ()),
            structlog.get_config(),
            structlog.contextvars.get_contextvars(),
            Path.cwd(),
        )


async def test_it_leaves_no_trace_in_the_program_that_calls_it(fleet: Fleet, capfd: pytest.CaptureFixture[str]) -> None:
    structlog.contextvars.bind_contextvars(request="of the program")
    before = _Traces().seen
    heard: list[Event] = []
    assert (await api.deploy(_plan(fleet), on_event=heard.append)).exit_code == 0
    with pytest.raises(api.Refused):
        await api.deploy(_plan(fleet), run_id=(await api.rollback(_plan(fleet))).run_id)
    assert _Traces().seen == before
    assert capfd.readouterr() == ("", "")
    assert [event for event in heard if "request" in event] == []


@pytest.mark.parametrize("way", ["anyio", "asyncio"])
async def test_a_task_that_is_cancelled_before_the_decision_ends_when_everything_is_as_before(
    fleet: Fleet, way: str
) -> None:
    fleet.plan(shards=GATE_WAITS)
    before = fleet.dumps()
    cancel = anyio.Event()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if event["event"] == "gate.started":
            cancel.set()

    async def deploy() -> None:
        await api.deploy(_plan(fleet), run_id="cut", on_event=hear)

    if way == "anyio":
        async with anyio.create_task_group() as group:
            group.start_soon(deploy)
            await cancel.wait()
            group.cancel_scope.cancel()
    else:
        task = asyncio.create_task(deploy())
        await cancel.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert heard[-1]["event"] == "deploy.rolled_back"
    fleet.wait_until_alone()
    assert fleet.dumps() == before
    told = await api.report(_plan(fleet), run="cut")
    assert told.error
    assert (told.outcome, told.error.message) == (api.RunOutcome.ROLLED_BACK, "interrupted by cancellation")


async def test_a_task_that_is_cancelled_after_the_decision_ends_when_everything_is_committed(fleet: Fleet) -> None:
    with anyio.CancelScope() as scope:

        def hear(event: Event) -> None:
            if event["event"] == "deploy.decided":
                scope.cancel()

        await api.deploy(_plan(fleet), run_id="late", on_event=hear)
    assert scope.cancelled_caught
    assert len(_has_note(fleet)) == 3
    assert (await api.report(_plan(fleet), run="late")).outcome is api.RunOutcome.COMMITTED


async def test_a_listener_that_fails_fails_no_deploy(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("a full disk")

    assert (await api.deploy(_plan(fleet), on_event=hear)).outcome is api.RunOutcome.COMMITTED
    assert len(heard) == 1
    assert [record.message for record in caplog.records] == ["on_event has failed, and is told of nothing more"]


async def test_a_listener_that_fails_is_called_once_where_the_log_that_says_so_comes_by_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        raise RuntimeError("a full disk")

    class Comes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            get_logger().info(EventName.LOG_MESSAGE, logger=record.name, message=record.getMessage())

    monkeypatch.setattr(logging.getLogger("smooth_orchestrator.embedding"), "handlers", [Comes()])
    assert (await api.deploy(_plan(fleet), on_event=hear)).outcome is api.RunOutcome.COMMITTED
    assert len(heard) == 1


def test_it_runs_in_a_thread_with_a_loop_of_its_own(fleet: Fleet) -> None:
    reports: list[api.Report] = []
    thread = threading.Thread(target=lambda: reports.append(asyncio.run(api.deploy(_plan(fleet)))))
    thread.start()
    thread.join()
    assert [report.outcome for report in reports] == [api.RunOutcome.COMMITTED]


def test_the_example_of_the_page_deploys_and_says_what_it_did(fleet: Fleet) -> None:
    program, *_ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    shown, *_ = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    (fleet.directory / "release.py").write_text(program)
    for exit_code, text in ((0, shown), (2, "deploy.toml: does not exist\n")):
        done = subprocess.run(
            [sys.executable, "release.py"], cwd=fleet.directory, capture_output=True, text=True, check=False
        )
        # Those of one phase are done in any order.
        assert (done.returncode, sorted(done.stdout.splitlines())) == (exit_code, sorted(text.splitlines()))
        assert done.stderr == ""
        _plan(fleet).unlink(missing_ok=True)


def test_importing_it_changes_nothing_and_needs_no_driver() -> None:
    program = (
        "import logging, sys; hooks = sys.excepthook, sys.unraisablehook\n"
        "from smooth_orchestrator import api\n"
        "assert not logging.root.handlers and hooks == (sys.excepthook, sys.unraisablehook)\n"
        "print(sorted({'asyncpg', 'django', 'rich', 'structlog'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
