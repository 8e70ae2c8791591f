"""Run `manage.py` in processes that have imported Django before they begin: half of a short command's time is that."""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.histories import SAME_ORDER

__all__ = ["can_run", "environment_here", "run"]

_SERVER: Final = Path(__file__).with_name("warm_server.py")
# An interpreter obeys these when it starts.
_OF_INTERPRETERS: Final = ("PYTHON", "LANG", "LC_")


def can_run(directory: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a command would do there what it does in an interpreter of its own."""
    hides_a_driver = (directory / "psycopg.py").exists()
    return not hides_a_driver and _of_interpreter(environment) == _of_interpreter(environment_here())


def run(arguments: Sequence[str], directory: Path, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Run `manage.py` with these arguments to its end.

    Args:
        arguments: of the command line.
        directory: where `manage.py` is.
        environment: of the process.

    Returns:
        Its return code as `subprocess` tells it, and what it wrote to stdout and to stderr.

    Raises:
        RuntimeError: it did not begin.
    """
    command = {"arguments": ["manage.py", *arguments], "directory": str(directory), "environment": {**environment}}
    reader, writer = os.pipe()
    with os.fdopen(reader) as answer, tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        try:
            socket.send_fds(_server(), [json.dumps(command).encode()], [stdout.fileno(), stderr.fileno(), writer])
        finally:
            os.close(writer)
        if not (code := answer.read()):
            raise RuntimeError("the process that has imported Django is gone")
        for file in (stdout, stderr):
            file.seek(0)
        return int(code), stdout.read(), stderr.read()


@cache
def _server() -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        server = subprocess.Popen(
            [sys.executable, "-B", "-P", _SERVER, str(its.fileno())],
            env=environment_here(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[its.fileno()],
        )

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


def environment_here() -> dict[str, str]:
    """Return this process's environment, in which output is buffered as it is for users."""
    return {name: value for name, value in (os.environ | SAME_ORDER).items() if name != "PYTHONUNBUFFERED"}


def _of_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OF_INTERPRETERS)}
