"""A part of a terminal that is drawn over and over, with lines that go on above it.

It is left sane by whatever ends the program, a SIGKILL too, since nothing of it is ever changed: the cursor stays
visible, keys are echoed, and there is no other screen to come back from. rich's own live display hides the cursor, and
loses count of its lines where a window that has become narrower wraps them; so of rich come the lines alone.
"""

import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TextIO

from rich.cells import cell_len

__all__ = ["Window"]

# A command that ends before the first picture shows none.
_PICTURE_S: Final = 0.25
_LEAST_PAUSE_S: Final = 0.125

# However large the window and slow the machine, drawing takes a twentieth of one processor at the most.
_PAUSE_SHARE: Final = 19
_SIZE: Final = os.terminal_size((80, 24))
_COLOUR: Final = re.compile("\x1b\\[[0-9;]*m")
_TO_THE_END_OF_LINE: Final = "\x1b[K"
_BELOW: Final = "\x1b[J"

Frame = Callable[[int, int], Sequence[str]]
"""Returns the lines of a picture that fit a window of so many columns and lines."""


class Window:
    """A terminal that one thread alone writes to while it is open: a terminal that is stopped keeps nobody else.

    Args:
        stream: the terminal.
        frame: returns the picture.
        stays: whether the last picture is left where it is.
    """

    def __init__(self, stream: TextIO, frame: Frame, *, stays: bool = False) -> None:
        self._stream = stream
        self._frame = frame
        self._stays = stays
        self._lock = threading.Lock()
        self._lines: deque[str] = deque()
        self._is_open = False
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._widths: list[int] = []

    def write(self, text: str) -> int:
        """Take whole lines, which come above the picture, and in their order."""
        with self._lock:
            if self._is_open:
                self._lines.append(text)
                self._wake.set()
                return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        """Write what a closed window may have kept; an open one keeps nothing for long."""
        if not self._is_open:
            self._stream.flush()

    def isatty(self) -> bool:
        """Say that it is a terminal."""
        return self._stream.isatty()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Draw for the length of a context; to be begun in the main thread."""
        thread = threading.Thread(target=self._draw_on, name="progress", daemon=True)
        went_on = signal.signal(signal.SIGCONT, self._begin_anew)
        # Signals are for the main thread: in any other one they would not end what that one waits for.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._is_open = True
            thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            yield
        finally:
            self._closing.set()
            self._wake.set()
            thread.join()
            signal.signal(signal.SIGCONT, went_on)

    def _draw_on(self) -> None:
        try:
            # A terminal that is gone is no reason to fail.
            with suppress(OSError, ValueError):
                while not self._closing.is_set():
                    self._wake.wait(_PICTURE_S)
                    self._wake.clear()
                    if not self._closing.is_set():
                        began_s = time.thread_time()
                        self._draw()
                        took_s = time.thread_time() - began_s
                        self._closing.wait(max(_LEAST_PAUSE_S, took_s * _PAUSE_SHARE))
                self._draw(is_last=True)
        finally:
            with self._lock:
                self._is_open = False
                with suppress(OSError, ValueError):
                    self._stream.write("".join(self._lines))
                    self._stream.flush()

    def _draw(self, *, is_last: bool = False) -> None:
        columns, lines = self._size()
        has_drawn = bool(self._widths)
        shows = self._is_in_front() and (not is_last or (self._stays and has_drawn))
        picture = self._frame(columns, lines) if shows else ()
        # A window that has become narrower has wrapped what was wider.
        rows = sum(max(1, -(-width // columns)) for width in self._widths)
        back = f"\r\x1b[{rows}A" if rows else ""
        above = "".join(self._lines.popleft() for _ in range(len(self._lines)))
        text = "".join((above, *(f"{line}\n" for line in picture)))
        self._widths = [cell_len(_COLOUR.sub("", line)) for line in picture]
        # Written over rather than erased first: a terminal that is cleared from its top keeps that in its history.
        over = text.replace("\n", f"{_TO_THE_END_OF_LINE}\n") + _BELOW if text else _emptied(rows)
        if not rows and not picture:
            over = text
        # In one piece, so that nobody sees the half of it.
        self._stream.write(back + over)
        self._stream.flush()

    def _begin_anew(self, _number: int, _frame: object) -> None:
        # Whoever had the terminal meanwhile has written below the last picture.
        self._widths = []

    def _is_in_front(self) -> bool:
        """Tell whether the program is in the foreground of its terminal, where others would be drawn over else."""
        try:
            front = os.tcgetpgrp(self._stream.fileno())
        except OSError:
            return True
        if front != os.getpgrp():
            self._widths = []
            return False
        return True

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except OSError:
            return _SIZE
        return size if size.columns and size.lines else _SIZE


def _emptied(rows: int) -> str:
    return f"{_TO_THE_END_OF_LINE}\n" * rows + f"\x1b[{rows}A" if rows else ""
