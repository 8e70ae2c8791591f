"""Workers as processes of this machine: started, or copied from one that was, and spoken to over a socket pair."""

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import Process, UNIXSocketStream

from smooth_orchestrator import leisure
from smooth_orchestrator.errors import WorkerError
from smooth_orchestrator.head_start import Start, take
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport.base import OnOutput, Worker
from smooth_orchestrator.transport.beside import beside
from smooth_orchestrator.transport.child import LocalWorker, python_of
from smooth_orchestrator.transport.copies import copied
from smooth_orchestrator.transport.processes import known, reading

__all__ = ["LocalTransport"]


def _start_of(project: Project) -> Start:
    return Start(python_of(project), str(project.path), project.settings, project.env)


def _command_line(project: Project, fd: int) -> Sequence[str]:
    return _start_of(project).argv(fd)


class LocalTransport:
    """Starts each worker with its project's interpreter, in its project's directory.

    Args:
        command: the command line, given the project and the descriptor of the worker's end of the socket.
        start_timeout_s: the longest that a worker may take to set up its Django.
        stop_timeout_s: the longest that a worker may take to end once it is told to; then it is killed.
    """

    def __init__(
        self,
        *,
        command: Callable[[Project, int], Sequence[str]] = _command_line,
        start_timeout_s: float = 60.0,
        stop_timeout_s: float = 10.0,
    ) -> None:
        self._command = command
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s

    async def most(self, project: Project) -> int:
        """Return how many workers of a project there is room for at a time: one for each core of this machine."""
        del project
        return os.cpu_count() or 1

    async def has_place(self, project: Project) -> bool:
        """Return that another worker would be started at once: processes wait for nobody."""
        del project
        return True

    async def machines(self) -> Sequence[Mapping[str, object]]:
        """Return nothing: there is no fleet."""
        return ()

    @asynccontextmanager
    async def worker(
        self, project: Project, *, on_output: OnOutput, like: Worker | None = None
    ) -> AsyncIterator[LocalWorker]:
        """Start a worker for the length of a context, which it never outlives; its settings are read by then.

        Args:
            project: whose Django it sets up.
            on_output: called with every line that it prints.
            like: one of the same project that holds nothing; a copy of it takes no time to start, where it can be made.

        Raises:
            WorkerError: it cannot be started, or its settings cannot be read.
        """
        copy = await copied(like) if isinstance(like, LocalWorker) else None
        with anyio.CancelScope(shield=True):  # a process once started must be known
            process, stream = copy or await self._open(project)
        leisure.begin()
        worker = LocalWorker(project, process, stream, on_output, self._start_timeout_s)
        async with beside() as tasks:
            try:
                worker.listen(tasks)
                await worker.greet()
                yield worker
            finally:
                with anyio.CancelScope(shield=True):
                    await worker.stop(self._stop_timeout_s)

    async def _open(self, project: Project) -> tuple[Process, UNIXSocketStream]:
        start = _start_of(project)
        if self._command is _command_line and (begun := take(start)) is not None:
            with suppress(OSError):  # for want of descriptors, say, which is told of the next one
                process = known(begun.process.pid, reading(begun.stdout), reading(begun.stderr), begun.process.poll)
                return process, await UNIXSocketStream.from_socket(begun.connection)
            begun.end()
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await anyio.open_process(
                    self._command(project, theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    cwd=project.path,
                    env=start.environment,
                    start_new_session=True,  # Ctrl-C at the terminal is the coordinator's to deal with
                    pass_fds=(theirs.fileno(),),
                )
            except OSError as error:
                ours.close()
                raise WorkerError(
                    f"project {project.name}: a worker cannot be started: {error.strerror}: {error.filename}",
                    hint="check the project's `path` and `python`",
                ) from error
        return process, await UNIXSocketStream.from_socket(ours)
