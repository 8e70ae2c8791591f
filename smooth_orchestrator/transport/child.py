"""A worker on this machine: what it says over its connection, what it prints, and how it ends."""

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import Literal

import anyio
from anyio.abc import ByteReceiveStream, Process, UNIXSocketStream

from smooth_migrations.protocol import PROTOCOL, Command, Event, Failed, Hello, ProtocolError, Stop, decode, encode
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport.base import OnEvent, OnOutput, WorkerLost
from smooth_orchestrator.transport.beside import Beside
from smooth_orchestrator.transport.calling import Calling
from smooth_orchestrator.transport.output import LineSplitter, OutputReader

__all__ = ["LocalWorker", "python_of"]

_GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError)
_SEND_S = 10.0
_CLOSING_S = 2.0
_DRAIN_S = 2.0
_LAST_LINES = 5


def python_of(project: Project) -> str:
    """Return the interpreter that a project's workers run."""
    return str(project.python or sys.executable)


class LocalWorker(Calling):
    """A process that speaks the protocol; made by `LocalTransport` alone."""

    hello: Hello
    machine: None = None
    _tasks: Beside

    def __init__(
        self,
        project: Project,
        process: Process,
        stream: UNIXSocketStream,
        on_output: OnOutput,
        start_timeout_s: float,
    ) -> None:
        super().__init__()
        self.project = project
        self.pid = process.pid
        self._process = process
        self._stream = stream
        self._on_output = on_output
        self._sending = anyio.Lock()
        self.copying = anyio.Lock()
        self._start_timeout_s = start_timeout_s
        self._greeting: Event | None = None
        self._greeted = anyio.Event()
        self._is_up = anyio.Event()
        self._exited = anyio.Event()
        self._stopping = False
        self.heard_s = time.monotonic()
        self._nonsense: str | None = None
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._printing = 2
        self._silent = anyio.Event()

    async def call(
        self, command: Command, on_event: OnEvent | None = None, *, descriptors: Collection[int] = ()
    ) -> Event:
        """Send a command and return its final event; several calls may be pending at once.

        Args:
            command: with an id of its own.
            on_event: awaited with every event before the final one, in order.
            descriptors: that the worker gets with it.

        Raises:
            WorkerLost: the worker ended before it answered, or had ended already.
        """
        return await self._call(command, on_event, lambda: self.tell(command, descriptors=descriptors))

    async def tell(self, command: Command, *, descriptors: Collection[int] = ()) -> None:
        """Send a command that has no answer; a worker that is gone is no error."""
        # Half a line would spoil all that follow, so a line once begun is not cancelled.
        async with self._sending:
            with anyio.move_on_after(_SEND_S, shield=True) as limit, suppress(*_GONE):
                if descriptors:
                    await self._stream.send_fds(encode(command), descriptors)
                else:
                    await self._stream.send(encode(command))
        if limit.cancelled_caught:
            self._nonsense = "does not read its commands"
            self.kill()

    def kill(self) -> None:
        """End the process, and what it started, at once."""
        if not self._exited.is_set():
            self._kill_group()
            # A copy has no group of its own yet while hooks of the fork are at work.
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def listen(self, tasks: Beside) -> None:
        """Begin to take in what the worker says and prints, until `stop`."""
        self._tasks = tasks
        for task in (self._watch, self._hear, self._hear_stdout, self._hear_stderr):
            tasks.start(task)

    async def greet(self) -> None:
        """Wait for the worker's first message.

        Raises:
            WorkerError: it is no greeting of our protocol, or does not come in time.
        """
        await self._hear_of(self._greeted)

    async def set_up(self) -> None:
        """Wait until its apps are loaded and it obeys; until then `hello` is what its settings alone tell.

        Raises:
            WorkerError: its Django cannot be set up.
        """
        await self._hear_of(self._is_up)

    async def _hear_of(self, step: anyio.Event) -> None:
        name = self.project.name
        with anyio.move_on_after(self._start_timeout_s):
            await step.wait()
        if not step.is_set():
            self.kill()
            raise WorkerError(
                f"project {name}: the worker (pid {self.pid}) did not set up Django within {self._start_timeout_s:g} s",
                hint="see what the project's settings and apps do when they are imported",
            )
        match self._greeting:
            case Hello(is_set_up=False) if step is self._is_up:
                await self._explain_no_greeting()
            case Hello(protocol=version) as hello if version == PROTOCOL:
                self.hello = hello
            case Hello(protocol=version, version=release):
                raise WorkerError(
                    f"project {name}: its smooth-orchestrator {release} speaks protocol {version}, not {PROTOCOL}",
                    hint=self._installation(),
                )
            case Failed(error=error):
                raise WorkerError(f"project {name}: {error.message}", hint=error.hint)
            case Event(type=said):
                raise WorkerError(
                    f"project {name}: the worker (pid {self.pid}) did not greet: it said {said}",
                    hint=self._installation(),
                )
            case None:
                await self._explain_no_greeting()

    async def stop(self, timeout_s: float) -> None:
        """Have the worker end, by force if need be, and take in what it still prints."""
        self._stopping = True
        if not self._is_up.is_set():
            self.kill()  # it is importing the project's settings or apps, and hears nobody; it holds nothing yet
        await self.tell(Stop(id=self.next_id()))
        with suppress(*_GONE):
            await self._stream.send_eof()
        with anyio.move_on_after(timeout_s):
            await self._exited.wait()
        self.kill()
        await self._exited.wait()
        with anyio.move_on_after(_DRAIN_S):
            await self._silent.wait()
        self._tasks.end()
        self._lose()
        await self._stream.aclose()
        await self._process.aclose()

    async def _watch(self) -> None:
        await self._process.wait()
        self._kill_group()
        self._exited.set()
        # A child in a session of its own holds our connection open for as long as it lives.
        with anyio.move_on_after(_CLOSING_S):
            await self._lost.wait()
        self._lose()

    async def _hear(self) -> None:
        lines = LineSplitter()
        try:
            async for chunk in self._stream:
                for line in lines.feed(chunk):
                    self._take(line)
        except ProtocolError as error:
            self._nonsense = f"spoke nonsense: {error}"
            self.kill()
        except _GONE:
            pass  # the same as the end of the stream
        if not self._stopping:
            with anyio.move_on_after(_CLOSING_S):
                await self._exited.wait()
            if not self._exited.is_set():
                self._nonsense = self._nonsense or "closed its connection"
                self.kill()
                await self._exited.wait()
        self._lose()

    def _take(self, line: bytes) -> None:
        self.heard_s = time.monotonic()
        message = decode(line)
        if not isinstance(message, Event):
            raise ProtocolError(f"a worker sends no {message.type}")
        if not self._is_up.is_set():
            self._greeting = message
            self._greeted.set()
            if not isinstance(message, Hello) or message.is_set_up:
                self._is_up.set()
        else:
            self._answer(message)

    async def _hear_stdout(self) -> None:
        await self._hear_output("stdout", self._process.stdout)

    async def _hear_stderr(self) -> None:
        await self._hear_output("stderr", self._process.stderr)

    async def _hear_output(self, name: Literal["stdout", "stderr"], stream: ByteReceiveStream | None) -> None:
        reader = OutputReader(name, self.pid)
        if stream is not None:
            async for chunk in stream:
                for line in reader.feed(chunk):
                    self._last_lines.append(line.line)
                    self._on_output(line)
        for line in reader.end():
            self._last_lines.append(line.line)
            self._on_output(line)
        self._printing -= 1
        if not self._printing:
            self._silent.set()

    def _lose(self) -> None:
        super()._lose()
        self._greeted.set()
        self._is_up.set()

    async def _explain_no_greeting(self) -> None:
        with anyio.move_on_after(_DRAIN_S):
            await self._silent.wait()
        lines = list(self._last_lines)
        if any("No module named" in line and "smooth_migrations" in line for line in lines):
            raise WorkerError(
                f"project {self.project.name}: {python_of(self.project)} has no smooth-orchestrator",
                hint=self._installation(),
            )
        raise WorkerError(
            "\n".join([f"project {self.project.name}: the worker (pid {self.pid}) {self._ending()}", *lines]),
            hint="the worker ended before its Django was set up; see its output",
        )

    def _installation(self) -> str:
        return f"{python_of(self.project)} -m pip install smooth-orchestrator"

    def _ended(self) -> WorkerLost:
        ending = self._ending()
        return WorkerLost(f"project {self.project.name}: the worker (pid {self.pid}) {ending}", ending=ending)

    def _ending(self) -> str:
        status = self._process.returncode
        if self._nonsense is not None:
            return self._nonsense
        if status is None:
            return "has ended" if self._exited.is_set() else "is being stopped"
        if status >= 0:
            return f"exited with {status}"
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
