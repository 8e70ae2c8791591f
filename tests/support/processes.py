"""End processes together with all that they started."""

from contextlib import suppress

import psutil

__all__ = ["kill_family", "words_of"]


def words_of(process: psutil.Process) -> list[str]:
    """Return the command line of a process; of one that is gone meanwhile, nothing."""
    with suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []


def kill_family(pid: int) -> None:
    """Kill a process and its descendants with SIGKILL, as a lost machine would, and wait until all are gone."""
    try:
        head = psutil.Process(pid)
        # A stopped process cannot have further children while they are counted.
        head.suspend()
        family = [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family)
