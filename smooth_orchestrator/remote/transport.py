"""Workers on other machines, as a coordinator has them: each is a session, which is a job of the queue."""

import math
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import anyio

from smooth_migrations import protocol
from smooth_migrations.protocol import AskCode, Code, Command, Event, Hello
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.logs import on_every_line
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.remote.messages import (
    Asked,
    Joined,
    Killed,
    Left,
    Message,
    MessageError,
    Printed,
    Refused,
    Said,
    Stopped,
    decode,
    encode,
)
from smooth_orchestrator.remote.post import Post, Side
from smooth_orchestrator.remote.queue import Job, Place, Queue, opened
from smooth_orchestrator.transport.base import OnEvent, OnOutput, OutputLine, Worker, WorkerLost, WorkerTransport
from smooth_orchestrator.transport.beside import beside
from smooth_orchestrator.transport.calling import Calling
from smooth_orchestrator.transport.local import LocalTransport

__all__ = ["QueueTransport"]

# How often the machines of sessions are looked after, in seconds.
_WATCH_S: Final = 2.0
# How long the first machine is waited for where none is there.
_NOBODY_S: Final = 5.0
# How long what is still to be sent to a session that ends may take.
_PARTING_S: Final = 5.0
# How long its worker may take then: to be stopped, or killed, and to be heard.
_ENDING_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Release:
    """What a project is here, which every machine must have the same of."""

    django: str
    code: str


class RemoteWorker(Calling):
    """A session of a worker on some machine; made by `QueueTransport` alone."""

    def __init__(self, project: Project, session: str, post: Post, on_output: OnOutput, reader: Worker) -> None:
        super().__init__()
        self.project = project
        self.session = session
        self.answered = anyio.Event()
        self.is_silent = False
        self.heard_s = time.monotonic()
        self._post = post
        self._on_output = on_output
        self._reader = reader
        self._hello: Hello | None = None
        self._refusal: Refused | None = None
        self._joined: Joined | None = None
        self._ending = "has not begun"
        self._is_heard = True
        self._letters_in, self._letters = anyio.create_memory_object_stream[str](math.inf)

    @property
    def hello(self) -> Hello:
        """What its project's Django says of itself here; once it was set up there, with what that machine has."""
        return self._hello or self._reader.hello

    @property
    def pid(self) -> int:
        """Its process id, on its own machine."""
        return self._joined.pid if self._joined else 0

    @property
    def machine(self) -> str | None:
        """The name of its machine, once one has taken it up."""
        return self._joined.machine if self._joined else None

    async def set_up(self) -> None:
        """Wait until a machine has taken it up and its apps are loaded.

        Raises:
            WorkerError: no machine does so in time, or what it has is another release.
        """
        await self._reader.set_up()
        await self.answered.wait()
        if self._refusal is not None:
            raise WorkerError(self._refusal.message, hint=self._refusal.hint)
        if self._joined is None:
            raise WorkerError(self._ended().message, hint="see the log of `smooth-orchestrate worker PLAN` there")

    async def call(self, command: Command, on_event: OnEvent | None = None) -> Event:
        """Send a command and return its final event; several calls may be pending at once.

        Args:
            command: with an id of its own.
            on_event: awaited with every event before the final one, in order.

        Raises:
            WorkerLost: the worker ended before it answered, or had ended already.
        """

        async def ask() -> None:
            self._say(Asked(line=protocol.encode(command).decode(), answers=True))

        return await self._call(command, on_event, ask)

    async def tell(self, command: Command) -> None:
        """Send a command that has no answer; a worker that is gone is no error."""
        self._say(Asked(line=protocol.encode(command).decode(), answers=False))

    def kill(self) -> None:
        """Give the worker up, and have it ended as soon as its machine hears of that."""
        self._say(Killed())
        self.lose("was given up")

    def lose(self, how: str) -> None:
        """Take note that it has ended. Repeating it does nothing."""
        if not self.is_lost:
            self._ending = how
            self._lose()
            self.answered.set()

    def refuse(self, refusal: Refused) -> None:
        """Take note that there will be none, and why; where one has begun after all, nothing."""
        if self._joined is None:
            self._refusal = refusal
            self.lose(f"was refused: {refusal.message}")

    def take(self, text: str) -> None:
        """Leave what its machine has sent to `listen`; nothing where that has ended."""
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._letters_in.send_nowait(text)

    async def listen(self) -> None:
        """Take in what its machine sends, until this is cancelled."""
        with self._letters_in, self._letters:
            try:
                async for text in self._letters:
                    self._hear(text)
            finally:
                self._is_heard = False

    def _hear(self, text: str) -> None:
        """Take in one message; a machine that speaks nonsense is given up."""
        self.heard_s = time.monotonic()
        try:
            message = decode(text)
            event = protocol.decode(message.line.encode()) if isinstance(message, Said) else None
        except (MessageError, protocol.ProtocolError) as error:
            self._say(Killed())
            self.lose(f"speaks nonsense: {error}")
            return
        match message:
            case Said():
                if isinstance(event, Event):
                    self._answer(event)
            case Printed() as printed:
                self._on_output(
                    OutputLine(printed.stream, printed.line, printed.database, printed.migration, printed.pid)
                )
            case Joined() as joined:
                self._joined = joined
                self._hello = replace(
                    self._reader.hello,
                    pid=joined.pid,
                    python=joined.python,
                    django=joined.django,
                    version=joined.version,
                )
                self._ending = "has ended"
                self.answered.set()
            case Refused() as refusal:
                self.refuse(refusal)
            case Left(message=how):
                self.lose(how)

    def fall_silent(self) -> None:
        """Take note that its machine says nothing any more. Repeating it does nothing."""
        if not self.is_lost:
            self.is_silent = True
            self.lose("is on a machine that says nothing any more")

    async def part(self) -> None:
        """Have it end, and hear what it still says; where nobody listens any more it is given up."""
        if self._is_heard:
            self._say(Stopped())
        else:
            self.kill()
        with anyio.move_on_after(_PARTING_S) as limit:
            await self._post.sent(self.session)
        if not limit.cancelled_caught:
            # What it still says is heard, as long as a worker may take to end; a machine that is gone is noticed.
            with anyio.move_on_after(_ENDING_S):
                await self._lost.wait()

    def _say(self, message: Message) -> None:
        if not self.is_lost:
            self._post.send(self.session, encode(message))

    def _ended(self) -> WorkerLost:
        where = f" on {self._joined.machine}" if self._joined else ""
        return WorkerLost(f"project {self.project.name}: the worker{where} {self._ending}", ending=self._ending)


class QueueTransport:
    """Has sessions taken up by machines of a fleet.

    What a project's settings say is asked of a process of this machine, which connects to no database.

    Args:
        place: where the queue is.
        local: starts that process; as this program does, unless given.
        start_timeout_s: how long a machine that has room may take to begin a session, and its Django to be set up.
    """

    def __init__(self, place: Place, local: WorkerTransport | None = None, *, start_timeout_s: float = 60.0) -> None:
        self._place = place
        self._local = local or LocalTransport()
        self._start_timeout_s = start_timeout_s
        self._readers: dict[str, Worker] = {}
        self._releases: dict[str, _Release] = {}
        self._workers: dict[str, RemoteWorker] = {}
        self._post: Post
        self._queue: Queue

    @asynccontextmanager
    async def open(self) -> AsyncIterator["QueueTransport"]:
        """Connect to the queue for the length of a context.

        Raises:
            WorkerError: its database cannot be reached.
        """
        async with AsyncExitStack() as stack:
            # First, for it says what is in the way.
            self._post = await stack.enter_async_context(Post(self._place.url, Side.COORDINATOR).open())
            self._queue = await stack.enter_async_context(opened(self._place))
            (await stack.enter_async_context(beside())).start(self._watch)
            yield self

    async def most(self, project: Project) -> int:
        """Return how many workers of a project the machines that live have room for."""
        return await self._queue.room(self._post, project.name)

    async def has_place(self, project: Project) -> bool:
        """Return whether a machine that lives would take another session of a project up at once."""
        return await self._queue.places(self._post, project.name) > 0

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return the machines that are known, those that say nothing any more too, with what they are at."""
        return await self._queue.machines(self._post)

    @asynccontextmanager
    async def worker(
        self, project: Project, *, on_output: OnOutput, like: Worker | None = None
    ) -> AsyncIterator[RemoteWorker]:
        """Have a machine start a worker for the length of a context, which it outlives for a moment at the most.

        Args:
            project: whose Django it sets up.
            on_output: called with every line that it prints.
            like: of no use here.

        Raises:
            WorkerError: nobody is there to start it, or the project's settings cannot be read here.
        """
        del like
        async with AsyncExitStack() as stack:
            reader = self._readers.get(project.name)
            if reader is None:
                reader = await stack.enter_async_context(self._local.worker(project, on_output=on_output))
                self._readers[project.name] = reader
                stack.callback(self._readers.pop, project.name)
            worker = RemoteWorker(project, secrets.token_hex(8), self._post, on_output, reader)
            (await stack.enter_async_context(beside())).start(worker.listen)
            stack.push_async_callback(self._part, worker)
            (await stack.enter_async_context(beside())).start(partial(self._begin, worker, reader))
            yield worker

    async def _part(self, worker: RemoteWorker) -> None:
        """Have a session end, or never begin, and forget it."""
        with anyio.CancelScope(shield=True):
            if not await self._withdrawn(worker) and worker.session in self._workers:
                await worker.part()
            self._workers.pop(worker.session, None)
            worker.lose("is being stopped")
            with anyio.move_on_after(_PARTING_S), suppress(WorkerError):
                await self._post.end(worker.session)
                if worker.is_silent:
                    await self._queue.tidy(self._post)

    async def _withdrawn(self, worker: RemoteWorker) -> bool:
        with anyio.move_on_after(_PARTING_S), suppress(WorkerError):
            return await self._queue.withdraw(self._post, worker.session)
        return False

    async def _begin(self, worker: RemoteWorker, reader: Worker) -> None:
        """Have a session taken up; what is in the way is what its `set_up` raises."""
        try:
            await reader.set_up()
            release = await self._release_of(worker.project, reader)
            await self._wait_for_room(worker.project)
            await self._post.begin(worker.session, worker.project.name)
            await self._post.join(worker.session, worker.take)
            told = on_every_line()
            run_id, trace_id = told.get("run_id", ""), told.get("trace_id", "")
            job = Job(worker.session, worker.project.name, release.django, release.code, run_id, trace_id)
            await self._queue.defer(self._post, job)
            self._workers[worker.session] = worker
            with anyio.move_on_after(self._start_timeout_s) as limit:
                await worker.answered.wait()
            if limit.cancelled_caught:
                raise await self._nobody_has_begun(worker.project)
        except WorkerError as error:
            worker.refuse(Refused(message=error.message, hint=error.hint))

    async def _release_of(self, project: Project, reader: Worker) -> _Release:
        if project.name not in self._releases:
            answer = await reader.call(AskCode(id=reader.next_id(), database="", alias=""))
            if not isinstance(answer, Code):
                raise WorkerError(
                    f"project {project.name}: the migrations of its apps cannot be read",
                    hint="see `manage.py showmigrations`",
                )
            self._releases[project.name] = _Release(reader.hello.django, answer.digest)
        return self._releases[project.name]

    async def _wait_for_room(self, project: Project) -> None:
        """Wait for the first machine, which may have been started with this program."""
        with anyio.move_on_after(_NOBODY_S):
            while not await self.most(project):  # noqa: ASYNC110 - machines enrol in the queue's database
                await anyio.sleep(_NOBODY_S / 20)
            return
        raise WorkerError(
            f"project {project.name}: no machine of the fleet serves it (queue {self._place.of(project.name)})",
            hint="start `smooth-orchestrate worker PLAN` where its code is",
        )

    async def _nobody_has_begun(self, project: Project) -> WorkerError:
        machines = [each for each in await self._queue.machines(self._post) if project.name in each["projects"]]
        at_work = "; ".join(map(_at_work, machines)) or "none serves it any more"
        return WorkerError(
            f"project {project.name}: no machine of the fleet has taken up work within {self._start_timeout_s:g} s:"
            f" {at_work}",
            hint="start `smooth-orchestrate worker PLAN` on another machine, or with a greater --concurrency: a run"
            " keeps a place for each of its projects",
        )

    async def _watch(self) -> None:
        """Take the workers for lost whose sessions are over, or with machines that say nothing any more."""
        while True:
            await anyio.sleep(_WATCH_S)
            if self._post.failure is not None:
                for worker in self._workers.values():
                    worker.lose(f"cannot be reached: {self._post.failure.message}")
            elif living := {session: worker for session, worker in self._workers.items() if not worker.is_lost}:
                with suppress(WorkerError):
                    for session in await self._queue.dead(self._post, [*living]):
                        living[session].fall_silent()
                        # A machine that lives all the same sees that nobody asks any more, and lets go.
                        await self._post.end(session)


def _at_work(machine: Mapping[str, Any]) -> str:
    """Return in words who has the places of a machine."""
    jobs = ", ".join(f"{job['project']} for the run {job['run_id']}" for job in machine["jobs"])
    return f"{machine['worker']}, with room for {machine['concurrency']}, is at {jobs or 'nothing'}"
