"""A machine of a fleet: takes sessions from the queue, and has a worker of its own for each."""

import math
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import anyio
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker as QueueWorker

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
from smooth_orchestrator import __version__
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
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
from smooth_orchestrator.remote.post import GONE_S, Post
from smooth_orchestrator.remote.queue import BEAT_S, TASK, Job, Queue
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import LocalTransport, OutputLine, Worker, WorkerLost

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

__all__ = ["Machine"]

# How often the coordinators of sessions are looked after, in seconds.
_WATCH_S: Final = 2.0
_PAUSE_S: Final = 1.0
_ENROL: Final = """
    INSERT INTO smooth_fleet_machine (worker_id, name, queues, concurrency, version) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING
"""
_LEAVE: Final = "DELETE FROM smooth_fleet_machine WHERE worker_id = $1"


class Machine:
    """Serves the projects that it has, as many sessions at a time as it may.

    Args:
        projects: by name; their settings are read here, and are no business of the queue's.
        queue: from which sessions come.
        post: by which they are spoken with.
        concurrency: how many sessions at a time, each a process.
    """

    def __init__(self, projects: Mapping[str, Project], queue: Queue, post: Post, concurrency: int) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._projects = projects
        self._queue = queue
        self._post = post
        self._concurrency = concurrency
        self._local = LocalTransport()
        self._serving: dict[str, _Session] = {}

    async def serve(self, draining: anyio.Event) -> None:
        """Take sessions until it is to drain, and end when the last one has. A queue that is away is waited for."""
        self._queue.app.task(name=TASK)(self._take_up)
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            while not draining.is_set():
                with suppress(ConnectorException):
                    await self._serve(draining)
                if not draining.is_set():
                    # Its sessions have ended, for their coordinators heard nothing of this machine any more.
                    _tell("the queue was lost, and is looked for again")
                    await anyio.sleep(_PAUSE_S)
            group.cancel_scope.cancel()

    async def _serve(self, draining: anyio.Event) -> None:
        worker = QueueWorker(
            self._queue.app,
            queues=[self._queue.place.of(name) for name in self._projects],
            name=self.name,
            concurrency=self._concurrency,
            fetch_job_polling_interval=BEAT_S,
            abort_job_polling_interval=BEAT_S,
            shutdown_graceful_timeout=self._queue.place.job_timeout_s,
            delete_jobs="always",
            install_signal_handlers=False,
            update_heartbeat_interval=BEAT_S,
            stalled_worker_timeout=GONE_S,
        )
        async with anyio.create_task_group() as group:
            group.start_soon(self._drain, draining, worker)
            group.start_soon(self._enrol, worker)
            await worker.run()  # type: ignore[no-untyped-call]
            group.cancel_scope.cancel()

    async def _drain(self, draining: anyio.Event, worker: QueueWorker) -> None:
        await draining.wait()
        worker.stop()  # type: ignore[no-untyped-call]
        for session in tuple(self._serving.values()):
            session.drain()

    async def _enrol(self, worker: QueueWorker) -> None:
        while worker.worker_id is None:  # noqa: ASYNC110 - the queue tells nobody
            await anyio.sleep(0.05)
        number, queues = worker.worker_id, [*(worker.queues or ())]
        values = (number, self.name, queues, self._concurrency, __version__)
        await self._post.run(lambda connection: connection.execute(_ENROL, *values))
        try:
            await anyio.sleep(math.inf)
        finally:
            with anyio.CancelScope(shield=True), suppress(WorkerError):
                await self._post.run(lambda connection: connection.execute(_LEAVE, number))

    async def _watch(self) -> None:
        """End the sessions whose coordinators are gone."""
        while True:
            await anyio.sleep(_WATCH_S)
            if self._serving:
                living: frozenset[str] = frozenset()
                with anyio.move_on_after(GONE_S):
                    living = await self._post.living([*self._serving])
                for name, session in tuple(self._serving.items()):
                    if name not in living:
                        session.abandon()

    async def _take_up(self, *, session: str, project: str, django: str, code: str) -> None:
        job = Job(session, project, django, code)
        if await self._post.living([session]):
            served = _Session(self._post, job, self._projects[project], self.name)
            self._serving[session] = served
            try:
                await served.serve(self._local)
            finally:
                del self._serving[session]
                self._post.leave(session)


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


class _Session:
    """One coordinator's worker on this machine."""

    def __init__(self, post: Post, job: Job, project: Project, machine: str) -> None:
        self._post = post
        self._job = job
        self._project = project
        self._machine = machine
        self._masker = Masker()
        self._over = anyio.Event()
        self._worker: Worker | None = None
        self._tasks: TaskGroup
        self._held = _Held()
        self._drains = False

    async def serve(self, local: LocalTransport) -> None:
        """Start the worker and have it do what is asked, until nobody asks any more."""
        how = "has ended"
        try:
            async with self._working(local) as worker:
                self._worker = worker
                await self._post.join(self._job.session, self._take)
                self._say(
                    Joined(
                        machine=self._machine,
                        pid=worker.pid,
                        python=worker.hello.python,
                        django=worker.hello.django,
                        version=worker.hello.version,
                    )
                )
                how = await self._until_over(worker)
        except WorkerError as error:
            self._over.set()
            await self._post.join(self._job.session, self._take)
            self._say(Refused(message=error.message, hint=error.hint))
        else:
            self._say(Left(message=how))
        with anyio.move_on_after(GONE_S):
            await self._post.sent(self._job.session)

    def drain(self) -> None:
        """End as soon as nothing is at work or stands open."""
        self._drains = True
        if not self._held:
            self._over.set()

    def abandon(self) -> None:
        """End what nobody asks for any more: the worker rolls back what stands open, as it does without a fleet."""
        self._over.set()

    @asynccontextmanager
    async def _working(self, local: LocalTransport) -> AsyncIterator[Worker]:
        async with local.worker(self._project, on_output=self._print) as worker:
            await worker.set_up()
            for secret in worker.hello.secrets:
                self._masker.add(secret)
            await self._check(worker)
            async with anyio.create_task_group() as self._tasks:
                yield worker
                self._tasks.cancel_scope.cancel()

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
                f"{self._machine} has {told}", hint="install the coordinator's release on every machine of the fleet"
            )

    async def _until_over(self, worker: Worker) -> str:
        async with anyio.create_task_group() as group:

            async def hear_loss() -> None:
                await worker.lost()
                self._over.set()

            group.start_soon(hear_loss)
            await self._over.wait()
            group.cancel_scope.cancel()
        loss = worker.loss
        return loss.message if loss else "was ended by its machine, which is to stop" if self._drains else "has ended"

    async def _take(self, text: str) -> None:
        if self._over.is_set():
            return
        try:
            message = decode(text)
            command = protocol.decode(message.line.encode()) if isinstance(message, Asked) else None
        except (MessageError, protocol.ProtocolError):
            self._over.set()
            return
        match message:
            case Asked(answers=True) if isinstance(command, Command):
                self._held.calls += 1
                self._tasks.start_soon(self._call, command)
            case Asked() if isinstance(command, Command) and self._worker is not None:
                await self._worker.tell(command)
            case Stopped():
                self._over.set()
            case Killed() if self._worker is not None:
                self._worker.kill()

    async def _call(self, command: Command) -> None:
        answer: Event | None = None
        try:
            if self._worker is not None:
                answer = await self._worker.call(command, self._hear)
                await self._hear(answer)
        except WorkerLost:
            self._over.set()
        finally:
            self._held.calls -= 1
            self._held.note(command, answer)
            if self._drains and not self._held:
                self._over.set()

    async def _hear(self, event: Event) -> None:
        if isinstance(event, Failed | MigrationFailed | UnapplyFailed | LockRetry | Stepping):
            event = replace(event, error=self._masked(event.error))
        self._say(Said(line=protocol.encode(event).decode()))

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
        self._say(
            Printed(
                stream=line.stream,
                line=self._masker.text(line.line),
                database=line.database,
                migration=line.migration,
            )
        )

    def _say(self, message: Message) -> None:
        self._post.send(self._job.session, encode(message))


def _tell(message: str) -> None:
    get_logger().warning(EventName.LOG_MESSAGE, logger="worker", message=message)
