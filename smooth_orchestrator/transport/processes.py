"""Processes that asyncio has not started, looked after all the same: by a descriptor of each (pidfd_open(2))."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import IO

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process

__all__ = ["known", "reading"]


def known(pid: int, stdout: ByteReceiveStream, stderr: ByteReceiveStream, status: Callable[[], int | None]) -> Process:
    """Return a process that somebody else has started.

    Args:
        pid: which.
        stdout: what it prints.
        stderr: the same.
        status: returns how it has ended, once it has: its exit code, or a signal's number below zero; None where nobody
            can tell.

    Raises:
        OSError: it is not there any more, and has been waited for; or there is no room for a descriptor.
    """
    return _Known(pid, os.pidfd_open(pid), stdout, stderr, status)


def reading(pipe: IO[bytes]) -> ByteReceiveStream:
    """Return a pipe, of which nobody has read into a buffer, as a stream; it is closed with that."""
    os.set_blocking(pipe.fileno(), False)
    return _Pipe(pipe)


class _Known(Process):
    def __init__(
        self,
        pid: int,
        descriptor: int,
        stdout: ByteReceiveStream,
        stderr: ByteReceiveStream,
        status: Callable[[], int | None],
    ) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._stdout = stdout
        self._stderr = stderr
        self._ask = status
        self._status: int | None = None

    async def wait(self) -> int:
        await anyio.wait_readable(self._descriptor)
        self._status = self._ask()
        return self._status or 0

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, signal: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal)

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def returncode(self) -> int | None:
        return self._status

    @property
    def stdin(self) -> ByteSendStream | None:
        return None

    @property
    def stdout(self) -> ByteReceiveStream | None:
        return self._stdout

    @property
    def stderr(self) -> ByteReceiveStream | None:
        return self._stderr

    async def aclose(self) -> None:
        os.close(self._descriptor)
        await self._stdout.aclose()
        await self._stderr.aclose()


class _Pipe(ByteReceiveStream):
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while True:
            await anyio.wait_readable(self._file)
            with suppress(BlockingIOError):
                if not (data := os.read(self._file.fileno(), max_bytes)):
                    raise anyio.EndOfStream
                return data

    async def aclose(self) -> None:
        self._file.close()
