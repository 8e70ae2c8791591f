"""Workers that are a script of a few lines, started by a transport as real ones are."""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from smooth_migrations.protocol import Fetch
from smooth_orchestrator.plan.values import Project
from smooth_orchestrator.transport import LocalTransport, OutputLine

__all__ = ["ECHO", "OF_A_FLEET", "fetch", "ignore", "project_in", "running", "scripted"]

_REPOSITORY: Final = Path(__file__).parents[2]
_PRELUDE: Final = """
import json, os, signal, socket, sys, threading
from smooth_migrations.protocol import *
wire = socket.socket(fileno=int(sys.argv[1]))
incoming = wire.makefile("rb")
def say(message):
    wire.sendall(encode(message))
def hear():
    line = incoming.readline()
    return decode(line) if line else None
def greet(protocol=PROTOCOL):
    facts = {"python": "3", "django": "5", "version": "9.9", "databases": (), "has_routers": False}
    say(Hello(protocol=protocol, pid=os.getpid(), **facts))
"""
OF_A_FLEET: Final = """
greet_alone = greet
def greet(**facts):
    greet_alone(**facts)
    if (asked := hear()) is not None:
        say(Code(id=asked.id, digest="d1"))
"""
"""What stands before the script of a worker that is first asked which migrations it has."""

ECHO: Final = """
greet()
while (command := hear()) is not None and not isinstance(command, Stop):
    say(Progress(id=command.id, statements=1))
    say(Progress(id=command.id, statements=2))
    say(Done(id=command.id))
"""
"""It answers whatever it is asked."""


def project_in(directory: Path) -> Project:
    """Return a project whose workers are scripts."""
    return Project("shop", directory, "shop.settings", env={"PYTHONPATH": str(_REPOSITORY), "SHOP": "open"})


def scripted(
    path: Path, script: str, *, prelude: str = "", start_timeout_s: float = 30.0, stop_timeout_s: float = 10.0
) -> LocalTransport:
    """Return a transport whose workers run a script.

    Args:
        path: the file to write it to.
        script: it may use all that the prelude defines.
        prelude: what stands before it too.
        start_timeout_s: of the transport.
        stop_timeout_s: the same.
    """
    path.write_text(_PRELUDE + prelude + textwrap.dedent(script))

    def command(_: Project, fd: int) -> Sequence[str]:
        return [sys.executable, str(path), str(fd)]

    return LocalTransport(command=command, start_timeout_s=start_timeout_s, stop_timeout_s=stop_timeout_s)


def ignore(_: OutputLine) -> None:
    """Take no notice."""


def fetch(number: int) -> Fetch:
    """Return a command with this id."""
    return Fetch(id=number, database="primary", alias="default", sql="SELECT 1")


def running(pid: int) -> bool:
    """Return whether a process has not ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
