"""Workers as child processes: what every transport promises, and what is so on one machine alone."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import LocalTransport, OutputLine, WorkerLost, WorkerTransport
from tests.support.scripted_workers import fetch, ignore, project_in, scripted
from tests.support.transport_contract import Speaking, TransportContract


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return project_in(tmp_path)


@pytest.fixture
def speaking(tmp_path: Path) -> Speaking:
    """Have the workers of this machine run a script."""

    @asynccontextmanager
    async def start(
        script: str, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 10.0
    ) -> AsyncIterator[WorkerTransport]:
        path = tmp_path / "worker.py"
        yield scripted(path, script, start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s)

    return start


class TestLocalTransport(TransportContract):
    """The transport that a deploy has without a fleet."""


async def test_a_lost_worker_is_named_by_its_process(speaking: Speaking, project: Project) -> None:
    async with (
        speaking("greet(); hear(); os._exit(3)") as transport,
        transport.worker(project, on_output=ignore) as worker,
    ):
        with pytest.raises(WorkerLost) as caught:
            await worker.call(fetch(1))
    assert caught.value.message == f"project shop: the worker (pid {worker.pid}) exited with 3"
    assert worker.machine is None


@pytest.mark.timeout(60)
async def test_a_worker_that_ended_is_lost_though_a_daemon_of_its_holds_its_connection(
    speaking: Speaking, project: Project
) -> None:
    script = """
    greet()
    command = hear()
    if (daemon := os.fork()) == 0:
        os.setsid()
        signal.pause()
    print(daemon, flush=True)
    os._exit(3)
    """
    lines: list[OutputLine] = []
    try:
        async with (
            speaking(script) as transport,
            transport.worker(project, on_output=lines.append) as worker,
        ):
            with pytest.raises(WorkerLost, match="exited with 3"):
                await worker.call(fetch(worker.next_id()))
    finally:
        for line in lines:
            psutil.Process(int(line.line)).kill()


async def test_a_worker_runs_in_its_project_with_its_settings_and_environment(
    speaking: Speaking, project: Project
) -> None:
    script = """
    print(os.getcwd(), os.environ["DJANGO_SETTINGS_MODULE"], os.environ["SHOP"], os.getsid(0) == os.getpid())
    greet()
    hear()
    """
    lines: list[OutputLine] = []
    async with speaking(script) as transport, transport.worker(project, on_output=lines.append):
        pass
    assert [line.line for line in lines] == [f"{project.path} shop.settings open True"]


async def test_an_interpreter_that_is_not_there_is_named(project: Project) -> None:
    missing = project.path / "bin" / "python"
    with pytest.raises(WorkerError, match=re.escape(str(missing))):
        async with LocalTransport().worker(replace(project, python=missing), on_output=ignore):
            pytest.fail("the worker has not started")


async def test_an_interpreter_without_our_package_is_told_how_to_get_it(tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # -S: without any installed package
    bare.chmod(0o755)
    with pytest.raises(WorkerError, match="has no smooth-orchestrator") as caught:
        async with LocalTransport().worker(Project("shop", tmp_path, "s", python=bare), on_output=ignore):
            pytest.fail("the worker has not started")
    assert caught.value.hint == f"{bare} -m pip install smooth-orchestrator"
