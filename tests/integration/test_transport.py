"""Workers as child processes: what comes back, what is printed, and every way to lose one."""

import contextlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest

from smooth_migrations.protocol import Cancel, Done, Event, Fetch, Progress, Rows
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import LocalTransport, OutputLine, WorkerLost

REPOSITORY = Path(__file__).parents[2]

PRELUDE = """
import json, os, signal, socket, sys, threading
from smooth_migrations.protocol import *
wire = socket.socket(fileno=int(sys.argv[1]))
incoming = wire.makefile("rb")
def say(message):
    wire.sendall(encode(message))
def hear():
    line = incoming.readline()
    return decode(line) if line else None
def greet(protocol=PROTOCOL):
    facts = {"python": "3", "django": "5", "version": "9.9", "databases": (), "has_routers": False}
    say(Hello(protocol=protocol, pid=os.getpid(), **facts))
"""
ECHO = """
greet()
while (command := hear()) is not None and not isinstance(command, Stop):
    say(Progress(id=command.id, statements=1))
    say(Progress(id=command.id, statements=2))
    say(Done(id=command.id))
"""
Start = Callable[..., LocalTransport]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project("shop", tmp_path, "shop.settings", env={"PYTHONPATH": str(REPOSITORY), "SHOP": "open"})


@pytest.fixture
def speaking(tmp_path: Path) -> Start:
    """Make a transport whose workers run the given script."""

    def start(script: str, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 10.0) -> LocalTransport:
        path = tmp_path / "worker.py"
        path.write_text(PRELUDE + textwrap.dedent(script))

        def command(_: Project, fd: int) -> Sequence[str]:
            return [sys.executable, str(path), str(fd)]

        return LocalTransport(command=command, start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s)

    return start


def ignore(_: OutputLine) -> None:
    """Take no notice."""


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def fetch(number: int) -> Fetch:
    return Fetch(id=number, database="primary", alias="default", sql="SELECT 1")


async def test_a_call_passes_events_in_order_and_returns_the_final_one(speaking: Start, project: Project) -> None:
    events: list[Event] = []

    async def keep(event: Event) -> None:
        events.append(event)

    async with speaking(ECHO).worker(project, on_output=ignore) as worker:
        number = worker.next_id()
        assert await worker.call(fetch(number), keep) == Done(id=number)
        assert events == [Progress(id=number, statements=1), Progress(id=number, statements=2)]
        assert worker.hello.pid == worker.pid
    assert not running(worker.pid)


async def test_pending_calls_get_their_own_answers_in_any_order(speaking: Start, project: Project) -> None:
    transport = speaking(
        "greet(); a = hear(); b = hear(); say(Done(id=b.id, committed=b.id)); say(Done(id=a.id)); hear()"
    )
    answers: list[Event] = []
    async with transport.worker(project, on_output=ignore) as worker:

        async def ask(number: int) -> None:
            answers.append(await worker.call(fetch(number)))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, 1)
            tasks.start_soon(ask, 2)
    assert answers == [Done(id=2, committed=2), Done(id=1)]


async def test_an_answer_of_many_megabytes_arrives_whole(speaking: Start, project: Project) -> None:
    transport = speaking("greet(); say(Rows(id=hear().id, rows=({'x': 'y' * 5_000_000},))); hear()")
    async with transport.worker(project, on_output=ignore) as worker:
        answer = await worker.call(fetch(1))
    assert isinstance(answer, Rows)
    assert len(answer.rows[0]["x"]) == 5_000_000


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("os._exit(3)", "exited with 3"),
        ("wire.sendall(b'{\"type\":'); os._exit(4)", "exited with 4"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("wire.sendall(b'garbage\\n'); signal.pause()", "spoke nonsense"),
        ("incoming.close(); wire.close(); signal.pause()", "closed its connection"),
    ],
)
async def test_a_worker_that_ends_midway_is_lost_to_this_call_and_later_ones(
    speaking: Start, project: Project, ending: str, words: str
) -> None:
    transport = speaking(f"greet(); say(Progress(id=hear().id, statements=1)); {ending}")
    async with transport.worker(project, on_output=ignore) as worker:
        with pytest.raises(WorkerLost, match=f"project shop.*{worker.pid}.*{words}"):
            await worker.call(fetch(1))
        with pytest.raises(WorkerLost, match=words):
            await worker.call(fetch(2))
        await worker.tell(Cancel(id=3, database="primary", alias="default", cancels=1))
    assert not running(worker.pid)


async def test_a_killed_worker_takes_what_it_forked_with_it(speaking: Start, project: Project) -> None:
    transport = speaking("""
        child = os.fork()
        if not child:
            signal.pause()
        greet()
        say(Done(id=hear().id, committed=child))
        signal.pause()
    """)
    async with transport.worker(project, on_output=ignore) as worker:
        answer = await worker.call(fetch(1))
        worker.kill()
        with pytest.raises(WorkerLost, match="killed by SIGKILL"):
            await worker.call(fetch(2))
    assert isinstance(answer, Done)
    # The signal was sent to both at once; the fork is nobody's child that could be waited for.
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.wait_procs([psutil.Process(answer.committed)], timeout=10)
    assert not running(answer.committed)


@pytest.mark.timeout(60)
async def test_a_worker_that_ended_is_lost_though_a_daemon_of_its_holds_its_connection(
    speaking: Start, project: Project
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
        async with speaking(script).worker(project, on_output=lines.append) as worker:
            with pytest.raises(WorkerLost, match="exited with 3"):
                await worker.call(fetch(worker.next_id()))
    finally:
        for line in lines:
            psutil.Process(int(line.line)).kill()


async def test_output_carries_what_was_at_work(speaking: Start, project: Project) -> None:
    transport = speaking("""
        greet()
        print("before", end="")
        for stream in (sys.stdout, sys.stderr):
            stream.write("\\n\\0" + json.dumps({"database": "primary", "migration": "a.0001"}) + "\\n")
        print("during\\n\\n" + "x" * 20_000)
        sys.stderr.buffer.write(b"bad \\xff")
        print("\\n\\0" + json.dumps({"database": None, "migration": None}))
        print("after", end="")
    """)
    lines: list[OutputLine] = []
    async with transport.worker(project, on_output=lines.append) as worker:
        pid = worker.pid
    assert [line for line in lines if line.stream == "stdout"] == [
        OutputLine("stdout", "before", None, None, pid),
        OutputLine("stdout", "during", "primary", "a.0001", pid),
        OutputLine("stdout", "x" * 8192, "primary", "a.0001", pid),
        OutputLine("stdout", "after", None, None, pid),
    ]
    assert [line for line in lines if line.stream == "stderr"] == [
        OutputLine("stderr", "bad \N{REPLACEMENT CHARACTER}", "primary", "a.0001", pid)
    ]


async def test_a_worker_runs_in_its_project_with_its_settings_and_environment(
    speaking: Start, project: Project
) -> None:
    transport = speaking("""
        print(os.getcwd(), os.environ["DJANGO_SETTINGS_MODULE"], os.environ["SHOP"], os.getsid(0) == os.getpid())
        greet()
        hear()
    """)
    lines: list[OutputLine] = []
    async with transport.worker(project, on_output=lines.append):
        pass
    assert [line.line for line in lines] == [f"{project.path} shop.settings open True"]


async def test_a_worker_that_ignores_stop_is_killed(speaking: Start, project: Project) -> None:
    transport = speaking("greet()\nwhile True: signal.pause()", stop_timeout_s=0.1)
    async with transport.worker(project, on_output=ignore) as worker:
        pass
    assert not running(worker.pid)


async def test_what_the_body_raises_comes_out_as_it_was_raised(speaking: Start, project: Project) -> None:
    error, cause = LookupError("ours"), ValueError("its cause")
    with pytest.raises(LookupError) as caught:
        async with speaking(ECHO).worker(project, on_output=ignore) as worker:
            raise error from cause
    assert caught.value is error
    assert error.__cause__ is cause
    assert not running(worker.pid)


async def test_a_cancelled_body_still_has_its_worker_stopped_and_heard(speaking: Start, project: Project) -> None:
    transport = speaking("greet(); hear(); assert isinstance(hear(), Stop); print('z' * 200_000 + '\\nrolled back')")
    lines: list[OutputLine] = []
    with anyio.CancelScope() as scope:
        async with transport.worker(project, on_output=lines.append) as worker, anyio.create_task_group() as tasks:
            tasks.start_soon(worker.call, fetch(1))
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
    assert scope.cancelled_caught
    assert lines[-1].line == "rolled back"
    assert not running(worker.pid)


async def test_what_the_listener_of_output_raises_is_not_lost(speaking: Start, project: Project) -> None:
    def refuse(line: OutputLine) -> None:
        raise LookupError(line.line)

    with pytest.raises(LookupError, match="hello"):
        async with speaking("greet(); print('hello'); hear()").worker(project, on_output=refuse):
            await anyio.sleep_forever()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("for n in range(9): print('line', n)\nos._exit(3)", "exited with 3\nline 4\nline 5\nline 6\nline 7\nline 8"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("wire.sendall(b'garbage\\n'); signal.pause()", "spoke nonsense"),
        ("say(Done(id=0)); hear()", "did not greet"),
        ("say(Failed(id=0, error=ErrorInfo('X', 'no such settings', hint='write them')))", "no such settings"),
        ("greet(protocol=PROTOCOL + 1); hear()", "speaks protocol 2, not 1"),
    ],
)
async def test_a_worker_that_cannot_start_says_why(speaking: Start, project: Project, script: str, words: str) -> None:
    with pytest.raises(WorkerError, match=f"project shop: .*{re.escape(words)}") as caught:
        async with speaking(script).worker(project, on_output=ignore):
            pytest.fail("the worker has not started")
    assert caught.value.hint
    assert not isinstance(caught.value, WorkerLost)


async def test_a_worker_that_never_greets_is_given_up(speaking: Start, project: Project) -> None:
    with pytest.raises(WorkerError, match=r"within 0\.1 s"):
        async with speaking("signal.pause()", start_timeout_s=0.1).worker(project, on_output=ignore):
            pytest.fail("the worker has not started")


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
