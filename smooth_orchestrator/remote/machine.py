"""A machine of a fleet: takes sessions from the queue, and has a worker of its own for each."""

import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import anyio
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker as QueueWorker

from smooth_orchestrator import __version__
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger, naming
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.remote.post import GONE_S, Post
from smooth_orchestrator.remote.queue import BEAT_S, TASK, Job, Queue
from smooth_orchestrator.remote.served import Served
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import LocalTransport, WorkerTransport
from smooth_orchestrator.transport.beside import beside

__all__ = ["Machine"]

# How often the coordinators of sessions are looked after, in seconds.
_WATCH_S: Final = 2.0
_PAUSE_S: Final = 1.0
_ENDING_LOOK_S: Final = 0.05
# How long a machine that ends tries to say so, and to learn whether a session is still wanted.
_LEAVING_S: Final = 5.0
# The queue's own worker no longer tells that it lives once it could not. One that was silent for long has been
# forgotten, and so has one of which a server's crash has lost the row.
_ENROL: Final = """
    WITH known AS (
        UPDATE procrastinate_workers SET last_heartbeat = clock_timestamp() WHERE id = $1 RETURNING id
    ), enrolled AS (
        INSERT INTO smooth_fleet_machine (worker_id, name, queues, concurrency, version)
        SELECT id, $2, $3::text[], $4::int, $5 FROM known ON CONFLICT DO NOTHING)
    SELECT EXISTS (SELECT FROM known)
"""
# What drains has room for nobody, until what is at hand has ended.
_CLOSE: Final = "UPDATE smooth_fleet_machine SET concurrency = 0 WHERE worker_id = $1"
_LEAVE: Final = "DELETE FROM smooth_fleet_machine WHERE worker_id = $1"


class Machine:
    """Serves the projects that it has, as many sessions at a time as it may.

    Args:
        projects: by name; their settings are read here, and are no business of the queue's.
        queue: from which sessions come.
        post: by which they are spoken with.
        concurrency: how many sessions at a time, each a process.
        masker: knows the plan's secrets, and learns those that projects tell.
        local: starts those processes; as this program does, unless given.
    """

    def __init__(
        self,
        projects: Mapping[str, Project],
        queue: Queue,
        post: Post,
        concurrency: int,
        masker: Masker,
        local: WorkerTransport | None = None,
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}"
        self._projects = projects
        self._queue = queue
        self._post = post
        self._concurrency = concurrency
        self._masker = masker
        self._local = local or LocalTransport()
        self._serving: dict[str, Served] = {}
        self._draining = anyio.Event()

    async def serve(self, draining: anyio.Event) -> None:
        """Take sessions until it is to drain, and end when the last one has. A queue that is away is waited for."""
        self._draining = draining
        self._queue.app.task(name=TASK)(self._take_up)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch)
                while not draining.is_set():
                    try:
                        await self._serve()
                    except* ConnectorException:
                        _warn("the queue was lost, and is looked for again")
                    if not draining.is_set():
                        # Its sessions have ended, for their coordinators heard nothing of this machine any more.
                        await anyio.sleep(_PAUSE_S)
                group.cancel_scope.cancel()
        finally:
            # The queue's worker does not wait for them where it is cancelled.
            self.abandon()
            with anyio.CancelScope(shield=True):
                while self._serving:  # noqa: ASYNC110 - once, when all is over
                    await anyio.sleep(_ENDING_LOOK_S)

    def abandon(self) -> None:
        """End what is at hand, which rolls back what stands open in its workers. Repeating it does nothing."""
        for session in tuple(self._serving.values()):
            session.abandon()

    async def _serve(self) -> None:
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
            group.start_soon(self._drain, worker)
            group.start_soon(self._enrol, worker)
            await worker.run()  # type: ignore[no-untyped-call]
            group.cancel_scope.cancel()

    async def _drain(self, worker: QueueWorker) -> None:
        await self._draining.wait()
        worker.stop()  # type: ignore[no-untyped-call]
        with anyio.move_on_after(_LEAVING_S), suppress(WorkerError):
            await self._post.run(lambda connection: connection.execute(_CLOSE, worker.worker_id))
        for session in tuple(self._serving.values()):
            session.drain()

    async def _enrol(self, worker: QueueWorker) -> None:
        while worker.worker_id is None:  # noqa: ASYNC110 - the queue tells nobody
            await anyio.sleep(0.05)
        number, queues = worker.worker_id, [*(worker.queues or ())]
        values = (number, self.name, queues, self._concurrency, __version__)
        try:
            while await self._post.run(lambda connection: connection.fetchval(_ENROL, *values)):
                await self._queue.tidy(self._post)
                await anyio.sleep(BEAT_S)
            _warn("was forgotten by the queue, and begins anew")
            worker.stop()  # type: ignore[no-untyped-call]
        finally:
            # It may be a queue that is away which ends this.
            with anyio.move_on_after(_LEAVING_S, shield=True), suppress(WorkerError):
                await self._post.run(lambda connection: connection.execute(_LEAVE, number))

    async def _watch(self) -> None:
        """End the sessions whose coordinators are gone; and all of them, with the machine, once it can hear nobody.

        Raises:
            PostError: the queue's database refuses what is asked.
        """
        while True:
            await anyio.sleep(_WATCH_S)
            if self._post.failure is not None:
                self.abandon()
                raise self._post.failure
            # Of one that begins while the queue answers, nothing was asked.
            if asked := dict(self._serving):
                living: frozenset[str] = frozenset()
                with anyio.move_on_after(GONE_S), suppress(WorkerError):
                    living = await self._post.living([*asked])
                for name, session in asked.items():
                    if name not in living:
                        session.abandon()

    async def _take_up(self, **given: str) -> None:
        job = Job(**given)
        with naming(worker=self.name, run_id=job.run_id, trace_id=job.trace_id):
            await self._serve_session(job)

    async def _serve_session(self, job: Job) -> None:
        session = job.session
        is_wanted = False
        if session not in self._serving:
            async with self._patience():
                is_wanted = session in await self._post.living([session])
        if is_wanted:
            limit_s = self._queue.place.job_timeout_s
            served = Served(self._post, job, self._projects[job.project], self.name, self._masker, limit_s)
            self._serving[session] = served
            if self._draining.is_set():
                # The queue had given it before it was told.
                served.drain()
            try:
                await served.serve(self._local)
            finally:
                del self._serving[session]
                self._post.leave(session)
        # Where that is not to be had any more, whichever machine lives forgets it later.
        async with self._patience():
            if not await self._post.living([session]):
                await self._post.end(session)

    @asynccontextmanager
    async def _patience(self) -> AsyncIterator[None]:
        """Wait in the body for a queue that is away; once the machine drains for a moment alone, then leave the body.

        Before that a job is not to end without the queue, which would not hear of it, and count its place as taken.
        """
        with anyio.CancelScope() as scope:
            async with beside() as tasks:
                tasks.start(partial(self._lose_patience, scope))
                yield

    async def _lose_patience(self, scope: anyio.CancelScope) -> None:
        await self._draining.wait()
        await anyio.sleep(_LEAVING_S)
        scope.cancel()


def _warn(message: str) -> None:
    get_logger().warning(EventName.LOG_MESSAGE, logger="worker", message=message)
