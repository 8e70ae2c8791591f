"""A second worker out of a first one by fork(2), which has everything that a start of Django makes."""

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
from smooth_migrations.worker.channel import Channel

__all__ = ["copy"]

# The main one, and the one that reads.
_THREADS: Final = 2
_PROCESS: Final = Path("/proc/self")
_SPEAKING: Final = ("socket:", "anon_inode:")


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
            if (refusal := _refusal({channel.descriptor, *descriptors, 1, 2})) is not None:
                return protocol.Failed(id=command.id, error=protocol.ErrorInfo("not_copied", refusal))
            starter = parent()
            if pid := _fork():
                return protocol.Copied(id=command.id, pid=pid)
            return _begin(channel, starter, *descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


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
    shared = [target for each in descriptors if each not in known and (target := _target(each)).startswith(_SPEAKING)]
    return f"the project holds {', '.join(shared)}" if shared else None


def _target(descriptor: int) -> str:
    try:
        return str((_PROCESS / "fd" / str(descriptor)).readlink())
    except FileNotFoundError:
        return ""  # by which they were listed


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
