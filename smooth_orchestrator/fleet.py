"""The workers of a run: one process a project, and more where there is work for them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Self, TypeVar

import anyio
from anyio.abc import TaskStatus

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Plan, Project, ProjectFacts, Target
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.transport import OutputLine, Worker, WorkerLost, WorkerTransport

__all__ = ["Fleet", "OnLoss", "at_work_at_most"]

# More of them commit no faster on a server of two cores, and leave none for anybody else.
_SESSIONS_EACH = 16
# How often it is looked whether there is room for another worker in place of a lost one, in seconds.
_LOOK_S = 5.0

_T = TypeVar("_T")
OnLoss = Callable[[Worker, WorkerLost], None]


class Fleet:
    """Workers by project, and which of them holds which target.

    A target stays with the worker that has begun to move it, because its open transaction lives there.

    Args:
        transport: starts workers.
        masker: learns the secrets that projects tell.

    Attributes:
        facts: what `ask`, or `set_up`, has returned last.
    """

    facts: dict[str, ProjectFacts]

    def __init__(self, transport: WorkerTransport, masker: Masker) -> None:
        self._transport = transport
        self._masker = masker
        self._hosts = anyio.create_task_group()
        self._starting: list[anyio.CancelScope] = []
        self._closing = anyio.Event()
        self._workers: dict[str, list[Worker]] = {}
        self._wanted: dict[str, int] = {}
        self._serving: dict[str, Worker] = {}
        self._at_work: set[Worker] = set()
        self._changed = anyio.Condition()
        self._listeners: list[OnLoss] = []
        self._replacing = anyio.Lock()
        self._limiters: dict[str, anyio.CapacityLimiter] = {}
        self._beside: dict[str, anyio.CapacityLimiter] = {}
        self._places: dict[str, anyio.CapacityLimiter] = {}
        self._most: Mapping[str, int] = {}

    async def __aenter__(self) -> Self:
        await self._hosts.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for scope in self._starting:
            scope.cancel()
        # Without the error, which is the caller's and goes on as it came.
        await self._hosts.__aexit__(None, None, None)

    async def ask(self, projects: Mapping[str, Project]) -> dict[str, ProjectFacts]:
        """Start one worker a project, at once, and return what the settings of each tell of its databases.

        Raises:
            WorkerError: one cannot be started.
        """

        async def ask(project: Project) -> None:
            self._workers[project.name] = [await self._host_of(project)]

        await _each(ask, projects.values())
        return self._hear()

    async def set_up(self) -> dict[str, ProjectFacts]:
        """Wait until the workers that were asked obey, and return what they tell of their databases then.

        That is what their settings told, unless an app has changed it. No worker does anything before. Idempotent.

        Raises:
            WorkerError: a project's Django cannot be set up.
        """

        async def set_up(worker: Worker) -> None:
            if worker.project.name not in self._wanted:
                await worker.set_up()
                self._joined(worker)

        await _each(set_up, [workers[0] for workers in self._workers.values()])
        return self._hear()

    def widen(self, plan: Plan, name: str) -> None:
        """Start further workers of a project, as many as its widest phase can use and there is room for.

        Returns at once; idempotent. Each takes up work as soon as its Django is set up. One that cannot be started
        leaves the work to the others.
        """
        targets = max((sum(each.project == name for each in phase.targets) for phase in plan.phases), default=1)
        parallel = max((phase.parallel for phase in plan.phases), default=1)
        self._hosts.start_soon(self._widen, plan.projects[name], min(targets, parallel))

    def serving(self, target: Target) -> Worker:
        """Return the worker that holds this target; one that can be asked about it where none does."""
        holder = self._serving.get(target.name)
        workers = self._workers[target.project]
        return holder or next((worker for worker in workers if not worker.is_lost), workers[0])

    def is_held(self, target: Target, worker: Worker) -> bool:
        """Return whether this worker holds a target."""
        return self._serving.get(target.name) is worker

    @asynccontextmanager
    async def lent(self, target: Target, *, keeps: bool) -> AsyncIterator[Worker]:
        """Wait for a worker that is at no other target, and have it for the length of a context.

        Args:
            target: what it is for. The worker that holds it serves, whatever it is at.
            keeps: whether the worker holds the target from then on.
        """
        if target.name in self._serving:
            yield self._serving[target.name]
            return
        async with self._changed:
            while (worker := self._idle(target.project)) is None:
                await self._changed.wait()
            self._at_work.add(worker)
        if keeps:
            self._serving[target.name] = worker
        try:
            yield worker
        finally:
            self._at_work.discard(worker)
            with anyio.CancelScope(shield=True):
                await self._tell_change()

    def forsake(self, target: Target) -> None:
        """Let another worker have a target, of which the one that held it holds nothing any more. Idempotent."""
        self._serving.pop(target.name, None)

    @contextmanager
    def hearing_losses(self, hear: OnLoss) -> Iterator[None]:
        """Call a function for each worker that is lost, for the length of a context; for the lost ones at once."""
        self._listeners.append(hear)
        for worker in self.workers:
            if (loss := worker.loss) is not None:
                hear(worker, loss)
        try:
            yield
        finally:
            self._listeners.remove(hear)

    def spare(self, servers: Mapping[str, int]) -> None:
        """Take note of how many connections each server may have at a time; before any is asked for."""
        self._most = servers

    def room_on(self, target: Target) -> anyio.CapacityLimiter:
        """Return what limits the connections that the coordinator itself opens to a target's server at a time."""
        most = self._most.get(target.server, _SESSIONS_EACH)
        return self._limiters.setdefault(target.server, anyio.CapacityLimiter(min(most, _SESSIONS_EACH)))

    def room_beside(self, target: Target) -> anyio.CapacityLimiter:
        """Return the same for the connections beside targets that are at work: one, where the plan limits them."""
        if target.server not in self._most:
            return self.room_on(target)
        return self._beside.setdefault(target.server, anyio.CapacityLimiter(1))

    def place_on(self, target: Target) -> AbstractAsyncContextManager[object]:
        """Return what limits the targets of one server that are at work at a time, where the plan says so."""
        if target.server not in self._most:
            return nullcontext()
        places = at_work_at_most(self._most[target.server])
        return self._places.setdefault(target.server, anyio.CapacityLimiter(places))

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return what is known of the machines on which workers are; nothing where that is this one.

        Raises:
            WorkerError: nobody can tell.
        """
        return await self._transport.machines()

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Every worker that was started, the lost ones too."""
        return tuple(worker for workers in self._workers.values() for worker in workers)

    async def living(self, plan: Plan, target: Target) -> Worker:
        """Return the worker that serves a target; a new one, for all that a lost one served, where it is lost.

        Raises:
            WorkerError: it cannot be started.
        """
        if not (serving := self.serving(target)).is_lost:
            return serving
        async with self._replacing:
            if not (serving := self.serving(target)).is_lost:
                return serving
            worker = self._idle_elsewhere(serving) or await self._in_place(plan.projects[target.project])
            for name, lost in self._serving.items():
                if lost is serving:
                    self._serving[name] = worker
            await self._tell_change()
            return worker

    async def _in_place(self, project: Project) -> Worker:
        """Start a worker in place of a lost one."""
        worker = await self._host_of(project)
        await worker.set_up()
        self._workers[project.name].append(worker)
        self._wanted[project.name] += worker.machine is not None
        self._joined(worker)
        return worker

    def _idle_elsewhere(self, lost: Worker) -> Worker | None:
        """Return a worker of a fleet that is at nothing and holds nothing, in place of a lost one of a fleet."""
        idle = self._idle_in(lost.project.name) if lost.machine is not None else None
        return None if idle in self._at_work else idle

    def _idle(self, name: str) -> Worker | None:
        """Return a worker that is at no target; a lost one, which says so, where there is no other kind."""
        living = [worker for worker in self._workers[name] if not worker.is_lost]
        if not living:
            return self._workers[name][0]
        return next((worker for worker in living if worker not in self._at_work), None)

    def _idle_in(self, name: str) -> Worker | None:
        """Return a worker of a project that holds no target, if there is one."""
        holding = [*self._serving.values()]
        return next((each for each in self._workers[name] if not each.is_lost and each not in holding), None)

    def _hear(self) -> dict[str, ProjectFacts]:
        hellos = {name: workers[0].hello for name, workers in self._workers.items()}
        self.facts = {name: ProjectFacts(hello.databases, hello.has_routers) for name, hello in hellos.items()}
        return self.facts

    async def _widen(self, project: Project, useful: int) -> None:
        most = min(useful, await self._transport.most(project))
        while self._wanted[project.name] < most:
            self._wanted[project.name] += 1
            self._hosts.start_soon(self._join, project)

    async def _join(self, project: Project) -> None:
        if self._closing.is_set():
            return
        with anyio.CancelScope() as scope:
            self._starting.append(scope)
            try:
                worker = await self._another(project)
            except WorkerError as error:
                failure = ErrorInfo(error.code, error.message, hint=error.hint)
                get_logger().warning(EventName.LOG_MESSAGE, logger="fleet", message=error.message, error=failure)
                return
            self._workers[project.name].append(worker)
            self._joined(worker)
            await self._tell_change()

    async def _another(self, project: Project) -> Worker:
        """Return another worker of a project: a copy, or one that is started where a copy does not come to life."""
        if (like := self._idle_in(project.name)) is not None:
            try:
                copy = await self._host_of(project, like)
                await copy.set_up()
            except WorkerError:
                get_logger().debug(EventName.LOG_MESSAGE, logger="fleet", message="a copy has ended at once")
            else:
                return copy
        worker = await self._host_of(project)
        await worker.set_up()
        return worker

    async def _host_of(self, project: Project, like: Worker | None = None) -> Worker:
        worker: Worker = await self._hosts.start(self._host, project, like)
        self._learn(worker)
        return worker

    def _joined(self, worker: Worker) -> None:
        self._wanted.setdefault(worker.project.name, 1)
        self._learn(worker)
        get_logger().info(
            EventName.WORKER_STARTED,
            project=worker.project.name,
            pid=worker.pid,
            python=worker.hello.python,
            django=worker.hello.django,
            version=worker.hello.version,
            worker=worker.machine,
        )

    def _learn(self, worker: Worker) -> None:
        for secret in worker.hello.secrets:
            self._masker.add(secret)

    async def _tell_change(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _host(self, project: Project, like: Worker | None, *, task_status: TaskStatus[Worker]) -> None:
        # A worker's context must end in the task that began it, and a replacement is asked for in a passing one.
        async with self._transport.worker(project, on_output=_log_output, like=like) as worker:
            task_status.started(worker)
            async with anyio.create_task_group() as group:
                group.start_soon(self._tell_loss, worker)
                await self._closing.wait()
                group.cancel_scope.cancel()

    async def _tell_loss(self, worker: Worker) -> None:
        try:
            await worker.set_up()
        except WorkerError:
            return  # whoever has asked for it hears that
        loss = await worker.lost()
        error = ErrorInfo(loss.code, loss.message, hint=loss.hint)
        get_logger().error(
            EventName.WORKER_FAILED, project=worker.project.name, pid=worker.pid, error=error, worker=worker.machine
        )
        for hear in tuple(self._listeners):
            hear(worker, loss)
        await self._tell_change()
        if worker.machine is not None:
            self._wanted[worker.project.name] -= 1
            await self._replace(worker.project)

    async def _replace(self, project: Project) -> None:
        """Start another worker for one that was lost with its machine, once other machines have room, or it is back."""
        with suppress(WorkerError):
            while not await self._is_replaced(project):  # noqa: ASYNC110 - others' machines
                await anyio.sleep(_LOOK_S)

    async def _is_replaced(self, project: Project) -> bool:
        # Whoever cannot wait for it must not ask for the same room at the same time.
        async with self._replacing:
            is_enough = self._wanted[project.name] >= await self._transport.most(project)
            if is_enough or not await self._transport.has_place(project):
                return False
            await self._in_place(project)
        await self._tell_change()
        return True


def at_work_at_most(connections: int) -> int:
    """Return how many targets may be at work over so many connections. Pure.

    Each takes two: its worker's, and one that sees whom it waits for. One more renews the leases of what is prepared.
    """
    return max(1, (connections - 1) // 2)


async def _each(work: Callable[[_T], Awaitable[None]], items: Iterable[_T]) -> None:
    """Do something with all of these at once; the error of the first that fails is raised when all have ended."""
    failures: dict[int, WorkerError] = {}

    async def one(index: int, item: _T) -> None:
        try:
            await work(item)
        except WorkerError as error:
            failures[index] = error

    async with anyio.create_task_group() as group:
        for index, item in enumerate(items):
            group.start_soon(one, index, item)
    if failures:
        raise failures[min(failures)]


def _log_output(line: OutputLine) -> None:
    get_logger().info(
        EventName.OUTPUT_CAPTURED,
        stream=line.stream,
        line=line.line,
        database=line.database,
        migration=line.migration,
        pid=line.pid,
    )
