"""Who holds a lease, and whether that process is still there."""

import os
import socket
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import Final, Self

__all__ = ["Holder", "Life", "Owner", "keep_parent", "life_of", "parent"]


class Life(Enum):
    """What can be known of a process from here."""

    HERE = auto()
    GONE = auto()
    ELSEWHERE = auto()


_parents: Final[list[int]] = []


def parent() -> int:
    """Return the process that has started this one, or the one that this is a copy of."""
    return _parents[0] if _parents else os.getppid()


def keep_parent(pid: int) -> None:
    """Take note, in a copy of a process, of who has started that one."""
    _parents[:] = [pid]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that may hold a lease.

    Args:
        name: the run's id, or anything else that no other owner has; not empty.
        host: what people call its machine.
        pid: the process, as its own machine counts.
        machine: tells machines apart on which a pid means something else: boot and pid namespace. Two containers
            may have one host name, and a pid of one means nothing in the other.
        started: when the process began, so that it is not taken for another one with its pid; empty if unknown.
    """

    name: str
    host: str
    pid: int
    machine: str
    started: str

    @classmethod
    def here(cls, name: str | None = None) -> Self:
        """Return this process as an owner; without a name it gets a unique one."""
        _state, started = _process(os.getpid())
        return cls(name or uuid.uuid4().hex, socket.gethostname()[:255], os.getpid(), _machine(), started)

    @property
    def is_here(self) -> bool:
        """Whether it is this very process."""
        return self.machine == _machine() and self.pid == os.getpid()

    @property
    def is_parent(self) -> bool:
        """Whether it is the process that has started this one, as a coordinator has its workers."""
        return self.machine == _machine() and self.pid == parent()


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease, or held it last.

    Args:
        owner: the process.
        since: when it was acquired, by the server's clock.
    """

    owner: Owner
    since: datetime

    def __str__(self) -> str:
        return f"host {self.owner.host}, pid {self.owner.pid}, since {self.since:%Y-%m-%d %H:%M:%S} UTC"


def life_of(owner: Owner) -> Life:
    """Look for a process, on this machine alone; only one of which it is certain is said to be gone."""
    if owner.machine != _machine():
        return Life.ELSEWHERE
    if os.name == "nt":
        # There os.kill would end it.
        return Life.HERE
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return Life.GONE
    except PermissionError:
        pass  # another user's
    state, started = _process(owner.pid)
    is_another = bool(started and owner.started) and started != owner.started
    return Life.GONE if is_another or state in {"Z", "X"} else Life.HERE


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        # Where the hardware's address is unknown it is random, and then only expiry tells.
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _process(pid: int) -> tuple[str, str]:
    """Return a process's state and when it began, in ticks since the boot; empty where that cannot be seen."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "", ""
    # The name before them may hold anything (proc(5)).
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]
