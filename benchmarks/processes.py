"""A program and all that it starts: how long they run, and how much memory they have together."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

__all__ = ["Watched", "watched"]

_EVERY_S: Final = 0.1
_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Watched:
    """How one run of a program went.

    Args:
        duration_s: wall clock.
        peak_mb: the most memory that its processes had in RAM together, in MiB; what two of them share counts twice.
        stdout: what it printed.
        stderr: likewise.
    """

    duration_s: float
    peak_mb: float
    stdout: str
    stderr: str


def watched(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], exit_code: int = 0) -> Watched:
    """Run a command to its end, and look at its processes ten times a second.

    Args:
        argv: the command line.
        cwd: where it runs.
        env: what it finds in its environment beside this process's.
        exit_code: which it must have.

    Raises:
        RuntimeError: it has another one; with what it printed.
    """
    started_s = time.perf_counter()
    with subprocess.Popen(
        argv,
        cwd=cwd,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        peaks = [0.0]
        ended = threading.Event()
        thread = threading.Thread(target=_look, args=(process.pid, ended, peaks))
        thread.start()
        try:
            stdout, stderr = process.communicate()
        finally:
            ended.set()
            thread.join()
    duration_s = time.perf_counter() - started_s
    if process.returncode != exit_code:
        raise RuntimeError(f"exit code {process.returncode} of {' '.join(argv)}:\n{stdout}{stderr[-4000:]}")
    return Watched(duration_s, max(peaks), stdout, stderr)


def _look(pid: int, ended: threading.Event, peaks: list[float]) -> None:
    with suppress(psutil.Error):
        first = psutil.Process(pid)
        while not ended.wait(_EVERY_S):
            sizes = []
            for each in (first, *first.children(recursive=True)):
                with suppress(psutil.Error):  # it has ended meanwhile
                    sizes.append(each.memory_info().rss)
            peaks.append(sum(sizes) / _MIB)
