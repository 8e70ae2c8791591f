"""The workers of a run: one process a project, and more where parallel work asks for it."""

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskStatus

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Plan, Project, ProjectFacts, Target
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import OutputLine, Worker, WorkerTransport

__all__ = ["Fleet"]

# More of them commit no faster on a server of two cores, and leave none for anybody else.
_SESSIONS_EACH = 16


class Fleet:
    """Workers by project, and which of them serves which target.

    A target stays with its worker, because its open transaction lives there.

    Args:
        transport: starts workers.
        masker: learns the secrets that projects tell.
    """

    def __init__(self, transport: WorkerTransport, masker: Masker) -> None:
        self._transport = transport
        self._masker = masker
        self._hosts = anyio.create_task_group()
        self._closing = anyio.Event()
        self._workers: dict[str, list[Worker]] = {}
        self._serving: dict[str, Worker] = {}
        self._replacing = anyio.Lock()
        self._limiters: dict[str, anyio.CapacityLimiter] = {}

    async def __aenter__(self) -> Self:
        await self._hosts.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        # Without the error, which is the caller's and goes on as it came.
        await self._hosts.__aexit__(None, None, None)

    async def ask(self, projects: Mapping[str, Project]) -> dict[str, ProjectFacts]:
        """Start one worker a project and return what each says of its databases.

        Raises:
            WorkerError: one cannot be started.
        """
        facts = {}
        for name, project in projects.items():
            worker = await self._start(project)
            facts[name] = ProjectFacts(worker.hello.databases, worker.hello.has_routers)
        return facts

    async def assign(self, plan: Plan) -> None:
        """Start as many workers as the widest phase can use, and give each target one."""
        for name, project in plan.projects.items():
            targets = [target for target in plan.targets if target.project == name]
            wanted = max(
                (min(phase.parallel, sum(target.project == name for target in phase.targets)) for phase in plan.phases),
                default=1,
            )
            while targets and len(self._workers[name]) < min(wanted, os.cpu_count() or 1):
                await self._start(project)
            for index, target in enumerate(targets):
                pool = self._workers[name]
                self._serving[target.name] = pool[index % len(pool)]

    def serving(self, target: Target) -> Worker:
        """Return the worker that holds this target."""
        return self._serving[target.name]

    def room_on(self, target: Target) -> anyio.CapacityLimiter:
        """Return what limits the connections that the coordinator itself opens to a target's server at a time."""
        return self._limiters.setdefault(target.server, anyio.CapacityLimiter(_SESSIONS_EACH))

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Every worker that was started, the lost ones too."""
        return tuple(worker for workers in self._workers.values() for worker in workers)

    async def living(self, plan: Plan, target: Target) -> Worker:
        """Return the worker that serves a target; a new one, for all that a lost one served, where it is lost.

        Raises:
            WorkerError: it cannot be started.
        """
        async with self._replacing:
            serving = self._serving[target.name]
            if not serving.is_lost:
                return serving
            worker = await self._start(plan.projects[target.project])
            for name, lost in self._serving.items():
                if lost is serving:
                    self._serving[name] = worker
            return worker

    async def _start(self, project: Project) -> Worker:
        worker: Worker = await self._hosts.start(self._host, project)
        self._workers.setdefault(project.name, []).append(worker)
        for secret in worker.hello.secrets:
            self._masker.add(secret)
        get_logger().info(
            EventName.WORKER_STARTED,
            project=project.name,
            pid=worker.pid,
            python=worker.hello.python,
            django=worker.hello.django,
            version=worker.hello.version,
        )
        return worker

    async def _host(self, project: Project, *, task_status: TaskStatus[Worker]) -> None:
        # A worker's context must end in the task that began it, and a replacement is asked for in a passing one.
        async with self._transport.worker(project, on_output=_log_output) as worker:
            task_status.started(worker)
            async with anyio.create_task_group() as group:
                group.start_soon(_tell_loss, worker)
                await self._closing.wait()
                group.cancel_scope.cancel()


async def _tell_loss(worker: Worker) -> None:
    loss = await worker.lost()
    error = ErrorInfo(loss.code, loss.message, hint=loss.hint)
    get_logger().error(EventName.WORKER_FAILED, project=worker.project.name, pid=worker.pid, error=error)


def _log_output(line: OutputLine) -> None:
    get_logger().info(
        EventName.OUTPUT_CAPTURED,
        stream=line.stream,
        line=line.line,
        database=line.database,
        migration=line.migration,
        pid=line.pid,
    )
