"""Workers that begin before their coordinator has read its plan.

A worker takes a second to set up its Django, and the coordinator a third of one to import what it needs and to check
the plan. What the plan's text says of its projects is enough to have them begin together. One that began as it would
have been started is taken for that one; any other is ended, and nobody hears of it: of a plan that is refused, say.
None outlives the context, nor, by its connection, this process.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

from smooth_orchestrator.documents import read_document
from smooth_orchestrator.errors import BadValue, PlanInvalid
from smooth_orchestrator.references import expand
from smooth_orchestrator.trust import doubts

__all__ = ["Begun", "Start", "head_start", "take"]


@dataclass(frozen=True, slots=True)
class Start:
    """How a worker is started.

    Args:
        python: its interpreter.
        directory: of its project, absolute.
        settings: the project's settings module.
        env: variables that it has beside those of this process. Secret.
    """

    python: str
    directory: str
    settings: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def argv(self, descriptor: int) -> Sequence[str]:
        """Return the command line, for a worker that finds its connection at a descriptor."""
        return [self.python, "-m", "smooth_migrations.worker", "--fd", str(descriptor)]

    @property
    def environment(self) -> dict[str, str]:
        """What it finds in its environment. Secret."""
        return {**os.environ, **self.env, "DJANGO_SETTINGS_MODULE": self.settings, "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A worker that was started, and has not been heard yet.

    Args:
        start: how.
        process: the leader of a session of its own.
        connection: to it.
        stdout: what it prints; not read yet.
        stderr: the same.
    """

    start: Start
    process: "subprocess.Popen[bytes]"
    connection: socket.socket
    stdout: IO[bytes]
    stderr: IO[bytes]

    def end(self) -> None:
        """End it at once, and what it has started."""
        self.connection.close()
        with self.process, suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


_begun: Final[list[Begun]] = []


@contextmanager
def head_start(plan: Path) -> Iterator[None]:
    """Have the workers of a plan begin, as many as there are cores; those that nobody takes end with the context.

    There are none where the plan cannot be read, where it might be somebody else's, which is told first, or where the
    machines of a fleet have the workers.

    Args:
        plan: its file.
    """
    try:
        # What is wrong with a plan, or keeps a worker from being started, is told by whoever comes upon it again.
        with suppress(PlanInvalid, BadValue, OSError, ValueError):
            if _can_be_waited_for() and not any(doubts(plan)):
                for start in [*_starts(plan)][: os.cpu_count()]:
                    _begun.append(_begin(start))
        yield
    finally:
        while _begun:
            _begun.pop().end()


def take(start: Start) -> Begun | None:
    """Return a worker that was started in just this way, if there is one; it is the caller's from then on."""
    found = next((each for each in _begun if each.start == start), None)
    if found is not None:
        _begun.remove(found)
    return found


def _can_be_waited_for() -> bool:
    """Return whether a process that asyncio has not started can be, by a descriptor (pidfd_open(2), Linux 5.3)."""
    if not hasattr(os, "pidfd_open"):
        return False
    os.close(os.pidfd_open(os.getpid()))
    return True


def _starts(plan: Path) -> Iterator[Start]:
    """Yield how the workers of a plan would be started, as far as its text alone tells."""
    match read_document(plan):
        case {"fleet": {"transport": transport}} if transport != "local":
            return
        case {"version": 1, "projects": dict(projects)}:
            directory = plan.parent.resolve()
            for table in projects.values():
                yield from _start(table, directory)


def _start(table: object, directory: Path) -> Iterator[Start]:
    match table:
        case {"path": str(path), "settings": str(settings), **more}:
            match more.get("python", sys.executable), more.get("env", {}):
                case str(python), dict(env) if all(isinstance(value, str) for value in env.values()):
                    told = {name: expand(value, os.environ) for name, value in env.items()}
                    yield Start(str(directory / python), str(directory / path), settings, told)


def _begin(start: Start) -> Begun:
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = subprocess.Popen(
                start.argv(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=start.directory,
                env=start.environment,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        except BaseException:
            ours.close()
            raise
    stdout, stderr = (cast("IO[bytes]", pipe) for pipe in (process.stdout, process.stderr))
    return Begun(start, process, ours, stdout, stderr)
