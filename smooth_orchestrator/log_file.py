"""The file of `--log-file`: whole lines, appended; opened anew once somebody has moved or removed it."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from smooth_orchestrator.errors import Mistake, PlanInvalid

__all__ = ["LogFile"]

# How long lines may follow a file that was moved. One that was removed is noticed before the next line.
_LOOK_EVERY_S: Final = 1.0

# A pipe that nobody reads would keep us waiting before the first word.
_FLAGS: Final = os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK

_CLOSED: Final = -1


class LogFile:
    """A file that lines are appended to, made for its owner alone where it is not there.

    Args:
        path: where; a relative one means the working directory of now.
        clock: tells the time in seconds, from any beginning.

    Raises:
        PlanInvalid: it cannot be opened.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_s = clock()
        self._is_cut = False
        try:
            self._path = path.absolute()
            self._descriptor = _opened(self._path)
        except OSError as error:
            mistake = Mistake("--log-file", f"{path}: {error.strerror}", "name a file that this user may write to")
            raise PlanInvalid([mistake]) from error

    def write(self, line: str) -> None:
        """Append a line, to the file that has the name now.

        Raises:
            OSError: it is closed, or cannot be written, or not all of it; the next line begins anew all the same.
        """
        self._follow()
        left = f"{line}\n".encode()
        if self._is_cut:
            left = b"\n" + left
        while left:
            written = os.write(self._descriptor, left)
            left = left[written:]
            # A disk that is full takes a part of a line. What comes when there is room again is not to be glued to it.
            self._is_cut = bool(left)

    def look_again(self) -> None:
        """Have the next line look whether the file was moved, whenever that was done last. May interrupt a `write`."""
        self._looked_s = -_LOOK_EVERY_S

    def close(self) -> None:
        """Let go of the file. What is written later fails: the number of a descriptor is soon another file's."""
        descriptor, self._descriptor = self._descriptor, _CLOSED
        os.close(descriptor)

    def _follow(self) -> None:
        now_s = self._clock()
        # The first asks the open file, the second looks its name up, which may be far away.
        is_removed = not os.fstat(self._descriptor).st_nlink
        if not is_removed and now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        # Where a new one cannot be made, as in a directory that is gone, the old one is better than none.
        with contextlib.suppress(OSError):
            if is_removed or self._was_moved():
                fresh = _opened(self._path)
                os.close(self._descriptor)
                self._descriptor, self._is_cut = fresh, False

    def _was_moved(self) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self._descriptor))


def _opened(path: Path) -> int:
    descriptor = os.open(path, _FLAGS, 0o600)
    os.set_blocking(descriptor, True)
    return descriptor
