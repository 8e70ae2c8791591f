"""The worker's end of the conversation: a socket of its own, so that what migrations print cannot break it."""

import errno
import json
import os
import queue
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from smooth_migrations.protocol import Command, Event, ProtocolError, decode, encode

__all__ = ["DESCRIPTORS", "Channel", "end_if_copy", "mark_output"]

_CHUNK_BYTES = 65_536
DESCRIPTORS = 3
"""How many come with a `Copy`: the ends of a connection, of stdout and of stderr."""


class Channel:
    """Commands in, events out.

    A thread reads, so that a command may interrupt the one at work. Commands for the main thread wait in order;
    the end of the conversation waits behind them, so that everything already asked for is still done.

    Args:
        connection: the socket that the coordinator handed down.
        beside: takes a command at once, in the reading thread, and says whether it did.
        ended: called in the reading thread when the coordinator is gone.
    """

    def __init__(
        self, connection: socket.socket, *, beside: Callable[[Command], bool], ended: Callable[[], None]
    ) -> None:
        self._socket = connection
        self._beside = beside
        self._ended = ended
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._descriptors: list[int] = []
        self._taking = threading.Lock()
        self._writing = threading.Lock()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._read, name="smooth-channel", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def next(self) -> Command | None:
        """Wait for the next command; None means that there will be none."""
        return self._commands.get()

    @property
    def descriptor(self) -> int:
        """That of the connection."""
        return self._socket.fileno()

    def descriptors(self) -> list[int]:
        """Return, and forget, the descriptors that have come with a `Copy`; the caller closes them."""
        taken, self._descriptors = self._descriptors, []
        return taken

    @contextmanager
    def still(self) -> Iterator[None]:
        """Keep the reading thread from everything but waiting, for the length of a context: a fork is to find it so."""
        with self._taking, self._writing:
            yield

    def leave(self) -> None:
        """Leave the conversation to the process that this one is a copy of."""
        self._socket.close()

    def say(self, event: Event) -> None:
        """Send one event. A coordinator that is gone is noticed by the reading thread, not here."""
        end_if_copy(self._pid)
        with self._writing:
            try:
                self._socket.sendall(encode(event))
            except OSError as error:
                if error.errno == errno.EBADF:
                    # A migration has closed our socket, and the reading thread, which waits on it, keeps it open for
                    # the coordinator. Nobody would ever hear of us again; what is held dies with us.
                    os._exit(1)

    def _read(self) -> None:
        buffer = b""
        try:
            while chunk := self._receive():
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    with self._taking:
                        self._take(decode(line))
        except (OSError, ProtocolError):
            pass  # a broken conversation ends like a closed one
        finally:
            self._commands.put(None)
            self._ended()

    def _take(self, message: Command | Event) -> None:
        if isinstance(message, Command) and not self._beside(message):
            self._commands.put(message)

    def _receive(self) -> bytes:
        chunk, descriptors, _flags, _address = socket.recv_fds(self._socket, _CHUNK_BYTES, DESCRIPTORS)
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)  # noqa: FBT003 - the function's own argument
        self._descriptors += descriptors
        return chunk


def end_if_copy(pid: int) -> None:
    """End this process where it is a copy that a migration has forked and that goes on with the worker's work.

    A copy shares the worker's sessions, which two cannot speak over, and hears nothing of its coordinator's end.

    Args:
        pid: the worker's.
    """
    if os.getpid() != pid:
        os._exit(1)


def mark_output(database: str | None, migration: str | None) -> None:
    """Write into stdout and stderr which database and migration the following lines belong to.

    In-band, so that it holds for what a dying process or its children leave in the pipe.
    """
    marker = b"\n\x00" + json.dumps({"database": database, "migration": migration}).encode() + b"\n"
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for descriptor in (1, 2):
        os.write(descriptor, marker)
