"""What the coordinator knows of a worker, wherever it runs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from smooth_migrations.protocol import Command, Event, Hello
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.plan.values import Project

__all__ = ["OnEvent", "OnOutput", "OutputLine", "Worker", "WorkerLost", "WorkerTransport"]


class WorkerLost(WorkerError):  # noqa: N818 - the name says it
    """A worker ended, or spoke nonsense, while it was needed.

    Args:
        message: which, and how.
        ending: how alone, for whoever knows it by another name.
    """

    code = "worker_lost"
    exit_code = 1

    def __init__(self, message: str, *, ending: str = "has ended") -> None:
        super().__init__(message)
        self.ending = ending


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line that a worker printed, with what was at work then.

    Args:
        stream: where it was printed.
        line: without its end.
        database: the target at work.
        migration: `app.name` of the migration at work.
        pid: the worker's.
    """

    stream: Literal["stdout", "stderr"]
    line: str
    database: str | None
    migration: str | None
    pid: int


OnOutput = Callable[[OutputLine], None]
OnEvent = Callable[[Event], Awaitable[None]]


class Worker(Protocol):
    """A process with one project's Django in it."""

    @property
    def project(self) -> Project:
        """Whose Django it is."""

    @property
    def hello(self) -> Hello:
        """What it said of itself last."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def machine(self) -> str | None:
        """The name of the machine of a fleet that it is on; None on the coordinator's own."""

    @property
    def heard_s(self) -> float:
        """When it last said anything, on the monotonic clock."""

    @property
    def is_lost(self) -> bool:
        """Whether it has ended."""

    @property
    def loss(self) -> WorkerLost | None:
        """How it has ended; None as long as it lives."""

    async def set_up(self) -> None:
        """Wait until its apps are loaded and it obeys; until then `hello` is what its settings alone tell.

        Raises:
            WorkerError: its Django cannot be set up.
        """

    def next_id(self) -> int:
        """Return an id for a command that this worker has not had before."""

    async def call(self, command: Command, on_event: OnEvent | None = None) -> Event:
        """Send a command and return its final event; several calls may be pending at once.

        Args:
            command: with an id of its own.
            on_event: awaited with every event before the final one, in order.

        Raises:
            WorkerLost: the worker ended before it answered, or had ended already.
        """

    async def tell(self, command: Command) -> None:
        """Send a command that has no answer; a worker that is gone is no error."""

    async def lost(self) -> WorkerLost:
        """Wait until the worker has ended, and return how."""

    def kill(self) -> None:
        """End the process, and what it started, at once."""


class WorkerTransport(Protocol):
    """Where workers come from."""

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return what is known of the machines of a fleet, for people; nothing where there is no fleet.

        Raises:
            WorkerError: nobody can tell.
        """

    async def most(self, project: Project) -> int:
        """Return how many workers of a project there is room for at a time.

        Raises:
            WorkerError: nobody can tell.
        """

    async def has_place(self, project: Project) -> bool:
        """Return whether another worker of a project would be started at once.

        Raises:
            WorkerError: nobody can tell.
        """

    def worker(
        self, project: Project, *, on_output: OnOutput, like: Worker | None = None
    ) -> AbstractAsyncContextManager[Worker]:
        """Start a worker for the length of a context, which it never outlives; its settings are read by then.

        Args:
            project: whose Django it sets up.
            on_output: called with every line that it prints.
            like: one of the same project that holds nothing, which may be copied instead.

        Raises:
            WorkerError: it cannot be started, or its settings cannot be read.
        """
