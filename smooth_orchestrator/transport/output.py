"""Bytes that arrive in pieces, as lines; and a worker's printed lines, with what was at work then."""

import json
import sys
from collections.abc import Iterator
from typing import Literal

from smooth_orchestrator.transport.base import OutputLine

__all__ = ["LONGEST_LINE", "LineSplitter", "OutputReader"]

LONGEST_LINE = 8 * 1024
"""How many bytes of a printed line are kept."""


class LineSplitter:
    """Cuts a stream of bytes into lines.

    Args:
        limit: what a line has beyond so many bytes is dropped.
    """

    def __init__(self, limit: int = sys.maxsize) -> None:
        self._limit = limit
        self._unfinished = bytearray()

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take in the next bytes and yield the lines that they complete, without their ends."""
        for number, piece in enumerate(chunk.split(b"\n")):
            if number:
                yield self.rest()
            self._unfinished += piece[: self._limit - len(self._unfinished)]

    def rest(self) -> bytes:
        """Return and forget what has no end yet."""
        line = bytes(self._unfinished)
        self._unfinished.clear()
        return line


class OutputReader:
    r"""Makes `OutputLine`s of what a worker writes to one stream.

    A line of a zero byte and a JSON object `{"database": …, "migration": …}` says what is at work from there on. Blank
    lines are dropped: workers write one before each such marker, lest it continue an unfinished line.

    Args:
        stream: which of the two.
        pid: the worker's.
    """

    def __init__(self, stream: Literal["stdout", "stderr"], pid: int) -> None:
        self._stream = stream
        self._pid = pid
        self._lines = LineSplitter(LONGEST_LINE)
        self._database: str | None = None
        self._migration: str | None = None

    def feed(self, chunk: bytes) -> Iterator[OutputLine]:
        """Take in the next bytes and yield the lines that they complete."""
        for line in self._lines.feed(chunk):
            yield from self._line(line)

    def end(self) -> Iterator[OutputLine]:
        """Yield the last line, if it has no end."""
        yield from self._line(self._lines.rest())

    def _line(self, raw: bytes) -> Iterator[OutputLine]:
        if raw.startswith(b"\0") and self._mark(raw[1:]):
            return
        line = raw.decode(errors="replace").rstrip()
        if line:
            yield OutputLine(self._stream, line, self._database, self._migration, self._pid)

    def _mark(self, marker: bytes) -> bool:
        try:
            context = json.loads(marker)
            database, migration = context["database"], context["migration"]
        except (ValueError, KeyError, TypeError):
            return False
        if not all(value is None or isinstance(value, str) for value in (database, migration)):
            return False
        self._database, self._migration = database, migration
        return True
