"""What every transport must do, as tests: inherit from it and give a fixture named `speaking`.

Called with a script, and time-outs as `scripted` has them, that opens a transport whose workers run it; there is room
for two of them at a time.
"""

# ruff: noqa: D102 - a test's name is its claim

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Protocol

import anyio
import psutil
import pytest

from smooth_migrations.protocol import Cancel, Done, Event, Progress, Rows
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import OnOutput, OutputLine, Worker, WorkerLost, WorkerTransport
from tests.support.scripted_workers import ECHO, fetch, ignore, running

__all__ = ["Speaking", "TransportContract", "at_work"]


class Speaking(Protocol):
    """Opens a transport whose workers run a script."""

    def __call__(
        self, script: str, *, start_timeout_s: float = 30.0, stop_timeout_s: float = 10.0
    ) -> AbstractAsyncContextManager[WorkerTransport]: ...


@asynccontextmanager
async def at_work(
    transport: WorkerTransport, project: Project, *, on_output: OnOutput = ignore
) -> AsyncIterator[Worker]:
    """Have a worker that obeys for the length of a context."""
    async with transport.worker(project, on_output=on_output) as worker:
        await worker.set_up()
        yield worker


async def _gone(pid: int) -> None:
    """Wait until a process is, which may be on its way."""
    with suppress(psutil.NoSuchProcess):
        await anyio.to_thread.run_sync(lambda: psutil.wait_procs([psutil.Process(pid)], timeout=20))
    assert not running(pid)


class TransportContract:
    """The contract; its tests are collected where it is inherited."""

    async def test_a_call_passes_events_in_order_and_returns_the_final_one(
        self, speaking: Speaking, project: Project
    ) -> None:
        events: list[Event] = []

        async def keep(event: Event) -> None:
            events.append(event)

        async with speaking(ECHO) as transport, at_work(transport, project) as worker:
            number = worker.next_id()
            assert await worker.call(fetch(number), keep) == Done(id=number)
            assert events == [Progress(id=number, statements=1), Progress(id=number, statements=2)]
            assert (worker.project, worker.hello.pid) == (project, worker.pid)
            assert (worker.is_lost, worker.loss) == (False, None)
            pid = worker.pid
            assert running(pid)
            assert await transport.most(project) >= 1
            assert await transport.has_place(project)
        assert worker.is_lost
        assert not running(pid)

    async def test_no_two_ids_are_the_same(self, speaking: Speaking, project: Project) -> None:
        async with speaking(ECHO) as transport, at_work(transport, project) as worker:
            assert len({worker.next_id() for _ in range(100)}) == 100

    async def test_pending_calls_get_their_own_answers_in_any_order(self, speaking: Speaking, project: Project) -> None:
        script = "greet(); a = hear(); b = hear(); say(Done(id=b.id, committed=b.id)); say(Done(id=a.id)); hear()"
        answers: list[Event] = []
        async with speaking(script) as transport, at_work(transport, project) as worker:

            async def ask(number: int) -> None:
                answers.append(await worker.call(fetch(number)))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask, 1)
                tasks.start_soon(ask, 2)
        assert answers == [Done(id=2, committed=2), Done(id=1)]

    async def test_an_answer_of_many_megabytes_arrives_whole(self, speaking: Speaking, project: Project) -> None:
        script = "greet(); say(Rows(id=hear().id, rows=({'x': 'y' * 5_000_000},))); hear()"
        async with speaking(script) as transport, at_work(transport, project) as worker:
            answer = await worker.call(fetch(1))
        assert isinstance(answer, Rows)
        assert len(answer.rows[0]["x"]) == 5_000_000

    async def test_a_call_that_was_given_up_leaves_the_others_their_answers(
        self, speaking: Speaking, project: Project
    ) -> None:
        script = "greet(); a = hear(); b = hear(); say(Done(id=a.id)); say(Done(id=b.id, committed=7)); hear()"
        async with speaking(script) as transport, at_work(transport, project) as worker:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(worker.call, fetch(1))
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()
            assert await worker.call(fetch(2)) == Done(id=2, committed=7)

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
        self, speaking: Speaking, project: Project, ending: str, words: str
    ) -> None:
        script = f"greet(); say(Progress(id=hear().id, statements=1)); {ending}"
        async with speaking(script) as transport, at_work(transport, project) as worker:
            pid = worker.pid
            with pytest.raises(WorkerLost, match=f"^project shop: the worker .*{words}"):
                await worker.call(fetch(1))
            with pytest.raises(WorkerLost, match=words):
                await worker.call(fetch(2))
            await worker.tell(Cancel(id=3, database="primary", alias="default", cancels=1))
            loss = await worker.lost()
            assert worker.is_lost
            assert (str(worker.loss), loss.ending) == (str(loss), str(loss)[-len(loss.ending) :])
            assert words in loss.ending
        assert not running(pid)

    async def test_what_a_worker_said_before_its_end_is_heard(self, speaking: Speaking, project: Project) -> None:
        script = """
        greet()
        number = hear().id
        wire.sendall(b"".join(encode(Progress(id=number, statements=each)) for each in range(200)))
        say(Done(id=number))
        os._exit(0)
        """
        heard: list[Event] = []

        async def keep(event: Event) -> None:
            heard.append(event)

        async with speaking(script) as transport, at_work(transport, project) as worker:
            assert await worker.call(fetch(1), keep) == Done(id=1)
        assert heard == [Progress(id=1, statements=each) for each in range(200)]

    async def test_a_killed_worker_takes_what_it_forked_with_it(self, speaking: Speaking, project: Project) -> None:
        script = """
        child = os.fork()
        if not child:
            signal.pause()
        greet()
        say(Done(id=hear().id, committed=child))
        signal.pause()
        """
        async with speaking(script) as transport:
            async with at_work(transport, project) as worker:
                answer = await worker.call(fetch(1))
                worker.kill()
                with pytest.raises(WorkerLost):
                    await worker.call(fetch(2))
                worker.kill()
            assert isinstance(answer, Done)
            # The signal was sent to both at once; the fork is nobody's child that could be waited for.
            await _gone(worker.pid)
            await _gone(answer.committed)

    async def test_output_carries_what_was_at_work(self, speaking: Speaking, project: Project) -> None:
        script = """
        print("importing", flush=True)
        greet()
        print("before", end="")
        for stream in (sys.stdout, sys.stderr):
            stream.write("\\n\\0" + json.dumps({"database": "primary", "migration": "a.0001"}) + "\\n")
        print("during\\n\\n" + "x" * 20_000)
        sys.stderr.buffer.write(b"bad \\xff")
        print("\\n\\0" + json.dumps({"database": None, "migration": None}))
        print("after", end="")
        """
        lines: list[OutputLine] = []
        async with speaking(script) as transport, at_work(transport, project, on_output=lines.append) as worker:
            pid = worker.pid
            await worker.lost()
        assert [line for line in lines if line.stream == "stdout"] == [
            OutputLine("stdout", "importing", None, None, pid),
            OutputLine("stdout", "before", None, None, pid),
            OutputLine("stdout", "during", "primary", "a.0001", pid),
            OutputLine("stdout", "x" * 8192, "primary", "a.0001", pid),
            OutputLine("stdout", "after", None, None, pid),
        ]
        assert [line for line in lines if line.stream == "stderr"] == [
            OutputLine("stderr", "bad \N{REPLACEMENT CHARACTER}", "primary", "a.0001", pid)
        ]

    async def test_a_worker_that_ignores_stop_is_killed(self, speaking: Speaking, project: Project) -> None:
        script = "greet()\nwhile True: signal.pause()"
        async with speaking(script, stop_timeout_s=0.1) as transport, at_work(transport, project) as worker:
            pid = worker.pid
        assert not running(pid)

    async def test_what_the_body_raises_comes_out_as_it_was_raised(self, speaking: Speaking, project: Project) -> None:
        error, cause = LookupError("ours"), ValueError("its cause")
        with pytest.raises(LookupError) as caught:
            async with speaking(ECHO) as transport, at_work(transport, project) as worker:
                raise error from cause
        assert caught.value is error
        assert error.__cause__ is cause
        assert not running(worker.pid)

    async def test_a_cancelled_body_still_has_its_worker_stopped_and_heard(
        self, speaking: Speaking, project: Project
    ) -> None:
        script = """
        greet()
        say(Progress(id=hear().id, statements=1))
        assert isinstance(hear(), Stop)
        print('z' * 200_000 + '\\nrolled back')
        """
        lines: list[OutputLine] = []
        async with speaking(script) as transport:
            with anyio.CancelScope() as scope:
                async with at_work(transport, project, on_output=lines.append) as worker:

                    async def cancel(_: Event) -> None:
                        scope.cancel()

                    await worker.call(fetch(1), cancel)
        assert scope.cancelled_caught
        assert lines[-1].line == "rolled back"
        assert not running(worker.pid)

    async def test_what_the_listener_of_output_raises_is_not_lost(self, speaking: Speaking, project: Project) -> None:
        def refuse(line: OutputLine) -> None:
            raise LookupError(line.line)

        async with speaking("greet(); hear(); print('hello'); hear(); hear()") as transport:
            with pytest.raises(LookupError, match="hello"):
                async with at_work(transport, project, on_output=refuse) as worker:
                    await worker.call(fetch(1))
            await _gone(worker.pid)

    async def test_what_a_listener_raises_is_no_other_worker_s_loss(self, speaking: Speaking, project: Project) -> None:
        def refuse(line: OutputLine) -> None:
            raise LookupError(line.line)

        async with speaking(f"print('hello', flush=True)\n{ECHO}") as transport, at_work(transport, project) as other:
            with pytest.raises(LookupError, match="hello"):
                async with at_work(transport, project, on_output=refuse):
                    await anyio.sleep_forever()
            assert await other.call(fetch(5)) == Done(id=5)

    async def test_what_the_listener_of_events_raises_comes_out_of_its_call_alone(
        self, speaking: Speaking, project: Project
    ) -> None:
        error = LookupError("ours")

        async def refuse(_: Event) -> None:
            raise error

        async with speaking(ECHO) as transport, at_work(transport, project) as worker:
            with pytest.raises(LookupError) as caught:
                await worker.call(fetch(1), refuse)
            assert caught.value is error
            assert await worker.call(fetch(2)) == Done(id=2)

    @pytest.mark.parametrize(
        ("script", "words"),
        [
            (
                "for n in range(9): print('line', n)\nos._exit(3)",
                "exited with 3\nline 4\nline 5\nline 6\nline 7\nline 8",
            ),
            ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
            ("wire.sendall(b'garbage\\n'); signal.pause()", "spoke nonsense"),
            ("say(Done(id=0)); hear()", "did not greet"),
            ("say(Failed(id=0, error=ErrorInfo('X', 'no such settings', hint='write them')))", "no such settings"),
            ("greet(protocol=PROTOCOL + 1); hear()", "speaks protocol 2, not 1"),
        ],
    )
    async def test_a_worker_that_cannot_start_says_why(
        self, speaking: Speaking, project: Project, script: str, words: str
    ) -> None:
        async with speaking(script) as transport:
            with pytest.raises(WorkerError, match=f"project shop: .*{re.escape(words)}") as caught:
                async with at_work(transport, project):
                    pytest.fail("the worker has not started")
        assert caught.value.message.count("project shop") == 1
        assert caught.value.hint
        assert not isinstance(caught.value, WorkerLost)

    async def test_a_worker_that_never_greets_is_given_up(self, speaking: Speaking, project: Project) -> None:
        async with speaking("signal.pause()", start_timeout_s=0.1) as transport:
            with pytest.raises(WorkerError, match=r"within 0\.1 s"):
                async with at_work(transport, project):
                    pytest.fail("the worker has not started")
