"""What processes have spent of the processor: a program that ends, and servers that go on."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

__all__ = ["Ended", "machine_s", "run", "spent_s"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended.

    Args:
        duration_s: wall clock.
        own_s: what its own process has spent of the processor.
        others_s: what the processes have spent that it has started.
        stderr: what it printed there.
    """

    duration_s: float
    own_s: float
    others_s: float
    stderr: str


def run(argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> Ended:
    """Run a command to its end.

    Args:
        argv: the command line.
        cwd: where it runs, and where what it prints is left.
        env: what it finds in its environment beside this process's.

    Raises:
        RuntimeError: it failed; with what it printed.
    """
    log = cwd / "program.log"
    with log.open("wb") as file:
        started_s = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=cwd, env={**os.environ, **env}, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
        # It is left to be looked at: what has ended tells of itself until somebody takes note of its end.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        duration_s = time.perf_counter() - started_s
        times = psutil.Process(process.pid).cpu_times()
        process.wait()
    text = log.read_text(errors="replace")
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode} of {' '.join(argv)}:\n{text[-4000:]}")
    return Ended(duration_s, times.user + times.system, times.children_user + times.children_system, text)


def spent_s(pid: int) -> float:
    """Return what a process and all that it has started have spent of the processor so far, in seconds."""
    first = psutil.Process(pid)
    total_s = 0.0
    for each in (first, *first.children(recursive=True)):
        with suppress(psutil.Error):  # it has ended meanwhile, and its parent knows what it has spent
            times = each.cpu_times()
            total_s += times.user + times.system + times.children_user + times.children_system
    return total_s


def machine_s() -> float:
    """Return what all processes of the machine have spent of its cores so far, in seconds."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice
