"""Workers that begin before the plan is understood: taken for what they are, or ended unheard."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import psutil
import pytest

from smooth_orchestrator.config import load
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.head_start import head_start
from smooth_orchestrator.plan import projects_of
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import LocalTransport, OutputLine, WorkerLost
from smooth_orchestrator.transport.child import LocalWorker
from tests.support.leases import until
from tests.support.scripted_workers import fetch, ignore, running
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

_PLAN: Final = """\
version = 1
deploy = { name = "small" }
projects.one = { path = "project", settings = "small_settings", env = { SMALL_DATABASES = "${DATABASES_OF_ONE}" } }
databases.all = { project = "one", aliases = "*" }
"""
_HANGS: Final = """
import os, pathlib, time
pathlib.Path("pid").write_text(str(os.getpid()))
time.sleep(600)
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return what makes a project and a plan of it, given further lines of the settings, and returns the plan."""

    def make(settings: str = "", plan: str = _PLAN) -> Path:
        databases = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "one.sqlite3")}}
        monkeypatch.setenv("DATABASES_OF_ONE", json.dumps(databases))
        SmallProject(tmp_path / "project", databases, {"demo.0001_item": ITEM}, settings=settings)
        path = tmp_path / "deploy.toml"
        path.write_text(plan)
        return path

    return make


_others: Final[set[int]] = set()


@pytest.fixture(autouse=True)
def _those_before() -> None:
    _others.clear()
    _others.update(_children())


def _children() -> set[int]:
    """Return the processes that this one has begun in a test."""
    return {each.pid for each in psutil.Process().children()} - _others


def _project(plan: Path) -> Project:
    return projects_of(load(plan, os.environ))["one"]


@asynccontextmanager
async def _taken(plan: Path, lines: list[OutputLine]) -> AsyncIterator[tuple[int, LocalWorker]]:
    """Have a worker begin, and be taken."""
    with head_start(plan):
        [begun] = _children()
        async with LocalTransport().worker(_project(plan), on_output=lines.append) as worker:
            yield begun, worker


async def test_the_one_that_began_is_taken_with_all_that_it_has_printed(made: Callable[..., Path]) -> None:
    lines: list[OutputLine] = []
    plan = made("print('first')\nwith open('/dev/stdout', 'w') as file:\n    print('second', file=file)\n")
    async with _taken(plan, lines) as (begun, worker):
        await worker.set_up()
        assert worker.pid == begun
        assert [each.alias for each in worker.hello.databases] == ["default"]
        assert _children() == {begun}
    assert [line.line for line in lines] == ["first", "second"]
    assert not running(begun)
    assert not _children()


async def test_each_is_taken_once(made: Callable[..., Path]) -> None:
    plan = made()
    async with (
        _taken(plan, []) as (begun, _worker),
        LocalTransport().worker(_project(plan), on_output=ignore) as other,
    ):
        assert other.pid != begun


@pytest.mark.parametrize(
    ("ends", "ending"), [("os._exit(3)", "exited with 3"), ("os.kill(os.getpid(), 9)", "was killed by SIGKILL")]
)
async def test_one_that_has_ended_is_told_of_like_any_other(made: Callable[..., Path], ends: str, ending: str) -> None:
    plan = made(f"import os; print('so long', flush=True); {ends}")
    with head_start(plan):
        [begun] = _children()
        await anyio.to_thread.run_sync(lambda: until(lambda: not running(begun)))
        with pytest.raises(WorkerError) as caught:
            async with LocalTransport().worker(_project(plan), on_output=ignore):
                pass
    assert caught.value.message == f"project one: the worker (pid {begun}) {ending}\nso long"


async def test_one_that_is_killed_later_is_lost(made: Callable[..., Path]) -> None:
    async with _taken(made(), []) as (_begun, worker):
        await worker.set_up()
        worker.kill()
        with pytest.raises(WorkerLost, match="was killed by SIGKILL"):
            await worker.call(fetch(1))


async def test_one_that_began_otherwise_is_not_taken_and_ends(made: Callable[..., Path]) -> None:
    plan = made()
    with head_start(plan):
        [begun] = _children()
        plan.write_text(_PLAN.replace('"${DATABASES_OF_ONE}"', '"${DATABASES_OF_ONE}", MORE = "x"'))
        async with LocalTransport().worker(_project(plan), on_output=ignore) as worker:
            assert worker.pid != begun
        assert running(begun)
    assert not running(begun)


@pytest.mark.parametrize(
    "plan",
    [
        "",
        "version = 2",
        "version = [",
        "version = 1",
        "version = 1\nprojects = 3",
        "version = 1\nprojects.one = 3",
        'version = 1\nprojects.one = { path = "project" }',
        'version = 1\nprojects.one = { path = 1, settings = "small_settings" }',
        'version = 1\nprojects.one = { path = "project", settings = "small_settings", python = 1 }',
        'version = 1\nprojects.one = { path = "project", settings = "small_settings", env = { A = 1 } }',
        'version = 1\nprojects.one = { path = "project", settings = "small_settings", env = { A = "${NO_SUCH}" } }',
        'version = 1\nprojects.one = { path = "project", settings = "small_settings", env = { A = "${" } }',
        'version = 1\nprojects.one = { path = "project", settings = "small\\u0000settings" }',
        f'{_PLAN}projects.two = {{ path = "project", settings = "small_settings", env = {{ A = "${{NO_SUCH}}" }} }}',
        'version = 1\nprojects.one = { path = "nowhere", settings = "small_settings" }',
        'version = 1\nprojects.one = { path = "project", settings = "small_settings", python = "no-such" }',
        f'fleet.transport = "procrastinate"\n{_PLAN}',
    ],
)
def test_of_a_plan_that_does_not_tell_none_begins(made: Callable[..., Path], plan: str) -> None:
    with head_start(made(plan=plan)):
        assert not _children()
    with head_start(made().with_name("no-such.toml")):
        assert not _children()


def test_of_many_projects_as_many_begin_as_there_are_cores(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    table = 'path = "project", settings = "small_settings"'
    with head_start(made(plan="version = 1\n" + "".join(f"projects.p{each} = {{ {table} }}\n" for each in range(5)))):
        assert len(_children()) == 2
    assert not _children()


def test_a_plan_that_is_refused_ends_what_hangs_in_its_settings(made: Callable[..., Path], tmp_path: Path) -> None:
    plan, told = made(_HANGS), tmp_path / "project/pid"
    with head_start(plan):
        until(lambda: told.exists() and bool(told.read_text()))
        pid = int(told.read_text())
        assert running(pid)
    assert not running(pid)


def test_one_that_nobody_has_taken_ends_with_a_coordinator_that_is_killed(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    plan, told = made(_HANGS), tmp_path / "project/pid"
    program = f"""
import sys
from pathlib import Path
from smooth_orchestrator.head_start import head_start

with head_start(Path({str(plan)!r})):
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) as coordinator:
        until(lambda: told.exists() and bool(told.read_text()))
        coordinator.kill()
    until(lambda: not running(int(told.read_text())))


async def test_one_that_cannot_be_waited_for_is_started_again(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    plan = made()
    with head_start(plan):
        [begun] = _children()
        # The system's own call is asyncio's too.
        monkeypatch.setattr("smooth_orchestrator.transport.local.known", refuse)
        async with LocalTransport().worker(_project(plan), on_output=ignore) as worker:
            await worker.set_up()
            assert worker.pid != begun
            assert not running(begun)
    monkeypatch.setattr("os.pidfd_open", refuse)
    with head_start(plan):
        assert not _children()


def test_a_plan_that_might_be_somebody_else_s_is_told_of_before_anything_of_it_runs(made: Callable[..., Path]) -> None:
    plan = made()
    plan.chmod(0o666)
    with head_start(plan):
        assert not _children()
