"""A worker that is a copy of another one, made by that one: not our child, and looked after all the same."""

import os
import socket
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import Process, UNIXSocketStream

from smooth_migrations.protocol import Copied, Copy
from smooth_orchestrator.transport.base import WorkerLost
from smooth_orchestrator.transport.child import LocalWorker
from smooth_orchestrator.transport.processes import known

__all__ = ["copied"]


async def copied(worker: LocalWorker) -> tuple[Process, UNIXSocketStream] | None:
    """Have a worker make another one of itself, and return its process and connection; None where it cannot.

    It cannot where the system tells nobody but a parent of the end of a process (pidfd_open(2), Linux 5.3), and where
    the worker says so.
    """
    # Where a project's python is a program that begins another one elsewhere, its processes mean nothing here.
    is_here = worker.hello.pid == worker.pid
    if not (hasattr(os, "pidfd_open") and worker.hello.knows_copy and is_here):
        return None
    # What comes with one request is not to be taken for another one's.
    async with worker.copying:
        return await _copied(worker)


async def _copied(worker: LocalWorker) -> tuple[Process, UNIXSocketStream] | None:
    with ExitStack() as stack:
        ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
        for end in theirs:
            stack.enter_context(end)
        connection, stdout, stderr = [await UNIXSocketStream.from_socket(end) for end in ours]
        process = None
        try:
            answer = await worker.call(Copy(id=worker.next_id()), descriptors=[end.fileno() for end in theirs])
            if isinstance(answer, Copied):
                pid = answer.pid
                process = known(pid, stdout, stderr, partial(_status_of, pid))
        except (WorkerLost, OSError):
            pass  # one of the two has ended
        finally:
            if process is None:  # the copy, if there is one, hears that, and ends
                for stream in (connection, stdout, stderr):
                    await anyio.aclose_forcefully(stream)
    return (process, connection) if process else None


def _status_of(pid: int) -> int | None:
    """Return how a process has ended, if its parent has left that to be looked at (proc_pid_stat(5))."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(after_name[-1])) if after_name[0] == "Z" else None
