"""Workers that are copies of another one: as good as one that was started, and none where a fork might do harm."""

import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest

from smooth_migrations.protocol import Fetch, Rows
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import LocalTransport, OutputLine, WorkerLost

REPOSITORY = Path(__file__).parents[2]

SETTINGS = """
SECRET_KEY = "x"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.db"}}
INSTALLED_APPS = ["smooth_migrations", "shop"]
"""
APP = """
from django.apps import AppConfig
class Shop(AppConfig):
    name = "shop"
    def ready(self):
        {ready}
"""
PRINTS = """
import os
from django.db.backends.signals import connection_created
self.tell = lambda **_: print(f"opened by {os.getpid()}")
connection_created.connect(self.tell)
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every worker is started")


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Project]:
    """Make a project whose only app does this when it is ready."""

    def make(ready: str) -> Project:
        app = tmp_path / "shop"
        app.mkdir()
        (app / "__init__.py").touch()
        (app / "apps.py").write_text(APP.format(ready=textwrap.indent(ready, " " * 8).strip()))
        (tmp_path / "settings.py").write_text(SETTINGS)
        return Project("shop", tmp_path, "settings", env={"PYTHONPATH": str(REPOSITORY)})

    return make


def ignore(_: OutputLine) -> None:
    """Take no notice."""


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def fetch(number: int, sql: str = "SELECT 1 AS one") -> Fetch:
    return Fetch(id=number, database="primary", alias="default", sql=sql)


async def test_a_copy_obeys_by_itself_and_outlives_the_worker_that_it_is_a_copy_of(
    made: Callable[[str], Project],
) -> None:
    project, transport, lines = made("pass"), LocalTransport(), list[OutputLine]()
    async with transport.worker(project, on_output=ignore) as first:
        await first.set_up()
        async with transport.worker(project, on_output=lines.append, like=first) as copy:
            await copy.set_up()
            assert psutil.Process(copy.pid).ppid() == first.pid
            assert os.getsid(copy.pid) == copy.pid == copy.hello.pid
            assert await first.call(fetch(first.next_id())) == Rows(id=2, rows=({"one": 1},))
            first.kill()
            await first.lost()
            assert await copy.call(fetch(copy.next_id())) == Rows(id=1, rows=({"one": 1},))
            pid = copy.pid
    assert not running(pid)


async def test_what_a_copy_prints_is_its_own(made: Callable[[str], Project]) -> None:
    project, transport = made(PRINTS), LocalTransport()
    of_first, of_copy = list[OutputLine](), list[OutputLine]()
    async with transport.worker(project, on_output=of_first.append) as first:
        await first.set_up()
        async with transport.worker(project, on_output=of_copy.append, like=first) as copy:
            await copy.set_up()
            await copy.call(fetch(copy.next_id()))
            assert of_first == []
            await first.call(fetch(first.next_id()))
            pids = first.pid, copy.pid
    assert [(line.line, line.stream) for line in of_first] == [(f"opened by {pids[0]}", "stdout")]
    assert [(line.line, line.stream) for line in of_copy] == [(f"opened by {pids[1]}", "stdout")]


async def test_a_copy_that_is_killed_is_lost_as_any_other_worker_and_its_original_goes_on(
    made: Callable[[str], Project],
) -> None:
    project, transport = made("pass"), LocalTransport()
    async with transport.worker(project, on_output=ignore) as first:
        await first.set_up()
        async with transport.worker(project, on_output=ignore, like=first) as copy:
            await copy.set_up()
            psutil.Process(copy.pid).kill()
            with pytest.raises(WorkerLost, match=f"pid {copy.pid}.*was killed by SIGKILL"):
                await copy.call(fetch(1))
        assert await first.call(fetch(7)) == Rows(id=7, rows=({"one": 1},))


async def test_several_copies_may_be_asked_for_at_a_time(made: Callable[[str], Project]) -> None:
    project, transport, parents = made("pass"), LocalTransport(), list[int]()
    async with transport.worker(project, on_output=ignore) as first:
        await first.set_up()

        async def copy() -> None:
            async with transport.worker(project, on_output=ignore, like=first) as another:
                await another.set_up()
                assert await another.call(fetch(1)) == Rows(id=1, rows=({"one": 1},))
                parents.append(psutil.Process(another.pid).ppid())

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(copy)
        assert parents == [first.pid] * 5


@pytest.mark.parametrize(
    "ready",
    [
        "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "import socket; self.ends = socket.socketpair()",
        "import select; self.poll = select.epoll()",
        "from django.db import connection; connection.ensure_connection()",
        "import os; self.ends = os.pipe()",
        "import sqlite3; self.other = sqlite3.connect('other.db'); self.other.execute('PRAGMA user_version')",
        "import os; os.fork = lambda: os.open('/none', os.O_RDONLY)",
    ],
    ids=["thread", "socket", "epoll", "connection", "pipe", "file", "no fork"],
)
async def test_what_a_fork_would_not_bear_is_started_instead(made: Callable[[str], Project], ready: str) -> None:
    project, transport = made(ready), LocalTransport()
    async with transport.worker(project, on_output=ignore) as first:
        await first.set_up()
        async with transport.worker(project, on_output=ignore, like=first) as second:
            await second.set_up()
            assert psutil.Process(second.pid).ppid() == os.getpid()
            assert await second.call(fetch(1)) == Rows(id=1, rows=({"one": 1},))


async def test_a_worker_that_ends_before_it_can_be_copied_is_replaced_by_one_that_is_started(
    made: Callable[[str], Project],
) -> None:
    project, transport = made("pass"), LocalTransport()
    async with transport.worker(project, on_output=ignore) as first:
        await first.set_up()
        first.kill()
        await first.lost()
        async with transport.worker(project, on_output=ignore, like=first) as second:
            await second.set_up()
            assert psutil.Process(second.pid).ppid() == os.getpid()
