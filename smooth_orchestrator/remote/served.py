"""A session as its machine serves it: what a coordinator asks is passed to a worker, and what the worker says back."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from smooth_migrations import protocol
from smooth_migrations.protocol import (
    Apply,
    AskCode,
    Code,
    Command,
    Commit,
    ErrorInfo,
    Event,
    Failed,
    LockRetry,
    MigrationFailed,
    Prepare,
    Rollback,
    Stepping,
    UnapplyFailed,
)
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.remote.messages import (
    Asked,
    Begun,
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
from smooth_orchestrator.remote.post import GONE_S, Post
from smooth_orchestrator.remote.queue import Job
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import OutputLine, Worker, WorkerLost, WorkerTransport

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Served"]


@dataclass(slots=True)
class _Held:
    """What stands open in a worker: it is not left alone with that."""

    calls: int = 0
    aliases: frozenset[str] = frozenset()

    def note(self, command: Command, answer: Event | None) -> None:
        """Take note of what a command has left open."""
        match command:
            case Apply() if isinstance(answer, protocol.Done):
                self.aliases |= {command.alias}
            case Prepare() | Commit() | Rollback():
                self.aliases -= {command.alias}

    def __bool__(self) -> bool:
        return bool(self.calls or self.aliases)


class Served:
    """A session as its machine has it: one coordinator's worker.

    Args:
        post: by which it is spoken with.
        job: what is asked.
        project: whose Django is set up.
        machine: the name of this one.
        masker: knows what must not stand in the queue's database, and learns what the project tells.
        limit_s: how long one command may take, in seconds.
    """

    def __init__(self, post: Post, job: Job, project: Project, machine: str, masker: Masker, limit_s: float) -> None:
        self._post = post
        self._job = job
        self._project = project
        self._machine = machine
        self._masker = masker
        self._limit_s = limit_s
        self._over = anyio.Event()
        self._worker: Worker | None = None
        self._tasks: TaskGroup
        self._held = _Held()
        self._drains = False
        self._how = "has ended"

    async def serve(self, local: WorkerTransport) -> None:
        """Start the worker and have it do what is asked, until nobody asks any more.

        Nothing where another machine has taken the session up first: a queue gives one twice where a crash of its
        server has lost that it was given.
        """
        session = self._job.session
        await self._post.join(session, self._take)
        begun = encode(Begun(machine=self._machine, turn=secrets.token_hex(8)))
        self._post.send(session, begun)
        try:
            async with self._working(local) as worker:
                await self._post.sent(session)
                if await self._post.first(session) != begun:
                    self._post.leave(session)
                    return
                self._say(
                    Joined(
                        machine=self._machine,
                        pid=worker.pid,
                        python=worker.hello.python,
                        django=worker.hello.django,
                        version=worker.hello.version,
                    )
                )
                self._tell_joined(worker)
                await self._until_over(worker)
        except WorkerError as error:
            self._end(error.message)
            get_logger().error(EventName.WORKER_FAILED, project=self._project.name, error=error)
            self._say(Refused(message=self._masker.text(error.message), hint=error.hint))
        else:
            message = f"the worker of project {self._project.name} {self._how}"
            get_logger().info(EventName.LOG_MESSAGE, logger="worker", message=message, project=self._project.name)
            self._say(Left(message=self._masker.text(self._how)))
        with anyio.move_on_after(GONE_S):
            await self._post.sent(session)

    def _tell_joined(self, worker: Worker) -> None:
        get_logger().info(
            EventName.WORKER_STARTED,
            project=self._project.name,
            pid=worker.pid,
            python=worker.hello.python,
            django=worker.hello.django,
            version=worker.hello.version,
        )

    def drain(self) -> None:
        """End as soon as nothing is at work or stands open."""
        self._drains = True
        self._end_if_drained()

    def abandon(self) -> None:
        """End at once: the worker rolls back what stands open, as it does without a fleet. Idempotent."""
        self._end("was ended by its machine")

    def _end(self, how: str) -> None:
        if not self._over.is_set():
            self._how = how
            self._over.set()

    def _end_if_drained(self) -> None:
        if self._drains and not self._held:
            self._end("was ended by its machine, which is to stop")

    @asynccontextmanager
    async def _working(self, local: WorkerTransport) -> AsyncIterator[Worker]:
        async with AsyncExitStack() as stack:
            with self._naming_machine():
                worker = await stack.enter_async_context(local.worker(self._project, on_output=self._print))
                self._learn(worker)
                await worker.set_up()
            self._learn(worker)
            await self._check(worker)
            self._tasks = await stack.enter_async_context(anyio.create_task_group())
            self._worker = worker
            try:
                yield worker
            finally:
                self._worker = None
            # What a lost one has answered before is passed on; then its calls end by themselves.
            if not worker.is_lost:
                self._tasks.cancel_scope.cancel()

    @contextmanager
    def _naming_machine(self) -> Iterator[None]:
        """Say where it is that a worker cannot start."""
        try:
            yield
        except WorkerError as error:
            raise WorkerError(f"{self._machine}: {error.message}", hint=error.hint) from error

    def _learn(self, worker: Worker) -> None:
        for secret in worker.hello.secrets:
            self._masker.add(secret)

    async def _check(self, worker: Worker) -> None:
        """Refuse to serve with another release than the coordinator has.

        Raises:
            WorkerError: it is another.
        """
        answer = await worker.call(AskCode(id=worker.next_id(), database="", alias=""))
        code = answer.digest if isinstance(answer, Code) else ""
        found = {"Django": worker.hello.django, "migrations": code}
        wanted = {"Django": self._job.django, "migrations": self._job.code}
        others = [name for name, value in found.items() if value != wanted[name]]
        if others:
            told = " and ".join(
                f"Django {found[name]} instead of {wanted[name]}" if name == "Django" else f"other {name}"
                for name in others
            )
            raise WorkerError(
                f"project {self._project.name}: {self._machine} has {told}",
                hint="install the coordinator's release on every machine of the fleet",
            )

    async def _until_over(self, worker: Worker) -> None:
        async with anyio.create_task_group() as group:

            async def hear_loss() -> None:
                self._end((await worker.lost()).ending)

            group.start_soon(hear_loss)
            await self._over.wait()
            group.cancel_scope.cancel()

    def _take(self, text: str) -> None:
        try:
            message = decode(text)
            command = protocol.decode(message.line.encode()) if isinstance(message, Asked) else None
        except (MessageError, protocol.ProtocolError):
            self._end("was sent what is no message")
            return
        worker = None if self._over.is_set() else self._worker
        match message:
            case Stopped():
                self._end("has ended")
            case Killed():
                self._end("was given up")
                if self._worker is not None:
                    self._worker.kill()
            case Asked(answers=True) if isinstance(command, Command) and worker is not None:
                self._held.calls += 1
                self._tasks.start_soon(self._call, command, worker)
            case Asked() if isinstance(command, Command) and worker is not None:
                self._tasks.start_soon(worker.tell, command)

    async def _call(self, command: Command, worker: Worker) -> None:
        answer: Event | None = None
        try:
            with anyio.move_on_after(self._limit_s) as limit:
                answer = await worker.call(command, self._hear)
                self._say(_said(self._masked_in(answer)))
            if limit.cancelled_caught:
                self._end(f"was at one command for {self._limit_s:g} s, the plan's `job_timeout`")
        except WorkerLost as loss:
            self._end(loss.ending)
        finally:
            self._held.calls -= 1
            self._held.note(command, answer)
            self._end_if_drained()

    async def _hear(self, event: Event) -> None:
        """Pass on what a worker says on its way to an answer."""
        self._say(_said(self._masked_in(event)), is_urgent=False)

    def _masked_in(self, event: Event) -> Event:
        if isinstance(event, Failed | MigrationFailed | UnapplyFailed | LockRetry | Stepping):
            return replace(event, error=self._masked(event.error))
        return event

    def _masked(self, error: ErrorInfo) -> ErrorInfo:
        """Return what may stand in the queue's database: what a driver says may quote a password."""

        def masked(text: str | None) -> str | None:
            return self._masker.text(text) if text else text

        return replace(
            error,
            message=self._masker.text(error.message),
            hint=masked(error.hint),
            detail=masked(error.detail),
            traceback=masked(error.traceback),
            causes=tuple(map(self._masked, error.causes)),
        )

    def _print(self, line: OutputLine) -> None:
        printed = Printed(
            stream=line.stream,
            line=self._masker.text(line.line),
            database=line.database,
            migration=line.migration,
            pid=line.pid,
        )
        self._say(printed, is_urgent=False)

    def _say(self, message: Message, *, is_urgent: bool = True) -> None:
        self._post.send(self._job.session, encode(message), is_urgent=is_urgent)


def _said(event: Event) -> Said:
    return Said(line=protocol.encode(event).decode())
