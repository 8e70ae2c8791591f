"""A second worker out of a first one by fork(2), which has everything that a start of Django makes."""

import fcntl
import os
import socket
import sys
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Final

from django.db import connections

from smooth_migrations import protocol
from smooth_migrations.protocol.owner import keep_parent, parent
from smooth_migrations.worker.channel import DESCRIPTORS, Channel

__all__ = ["copy"]

# The main one, and the one that reads.
_THREADS: Final = 2
_PROCESS: Final = Path("/proc/self")
_SPEAKING: Final = ("socket:", "pipe:", "anon_inode:")


def copy(command: protocol.Copy, channel: Channel) -> protocol.Event | socket.socket:
    """Fork, where the other process gets all that this one has, and neither gets into the other's way.

    A fork has no threads but the one that forks, and two processes cannot both speak over one connection. Where the
    project's apps have begun either, or this worker holds anything, nothing is done.

    Args:
        command: that asked.
        channel: of this process, with the descriptors for the other one.

    Returns:
        What this process answers; in the other one, its own end of its connection.
    """
    descriptors = channel.descriptors()
    try:
        with channel.still():
            refusal = _refusal({channel.descriptor, *descriptors, 0, 1, 2})
            if refusal is None and len(descriptors) == DESCRIPTORS:
                starter = parent()
                if pid := _fork():
                    return protocol.Copied(id=command.id, pid=pid)
                return _begin(channel, starter, *descriptors)
    except Exception as error:  # noqa: BLE001 - a machine may have no room for one more, and a project hooks of its own
        refusal = f"{type(error).__name__}: {error}"
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    message = refusal or f"{len(descriptors)} descriptors have come with it"
    return protocol.Failed(id=command.id, error=protocol.ErrorInfo("not_copied", message))


def _refusal(known: Collection[int]) -> str | None:
    """Return why a copy might do harm, if it might.

    Args:
        known: descriptors of which it is known that they do none.
    """
    if any(each.connection is not None for each in connections.all(initialized_only=True)):
        return "a database is at work"
    try:
        threads = len([*(_PROCESS / "task").iterdir()])
        descriptors = [int(each.name) for each in (_PROCESS / "fd").iterdir()]
    except OSError as error:
        return f"nothing tells of this process: {error}"
    if threads > _THREADS:
        return f"{threads - _THREADS} threads of the project are at work"
    shared = [target for each in descriptors if each not in known and (target := _shared(each))]
    return f"the project holds {', '.join(shared)}" if shared else None


def _shared(descriptor: int) -> str | None:
    """Return what is behind a descriptor that only one process may use: whom one speaks to, or what one also writes.

    Files that are only written to, or only read, such as logs, bear it. SQLite's do not.
    """
    try:
        target = str((_PROCESS / "fd" / str(descriptor)).readlink())
        is_open_for_both = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    except OSError:
        return None  # by which they were listed
    is_device = target.startswith("/dev/")
    return target if target.startswith(_SPEAKING) or (is_open_for_both and not is_device) else None


def _fork() -> int:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        # Python warns of every thread; ours is kept from everything but waiting.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _begin(channel: Channel, starter: int, connection: int, stdout: int, stderr: int) -> socket.socket:
    try:
        keep_parent(starter)
        os.setsid()
        channel.leave()
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        return socket.socket(fileno=os.dup(connection))
    except BaseException:  # noqa: BLE001 - two of the original would be worse than none of the copy
        os._exit(1)
