"""Run programs in processes that have imported theirs before they begin: half of a short command's time is that."""

import atexit
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from tests.support.histories import SAME_ORDER
from tests.support.warm_server import WIDTH

__all__ = ["DJANGO", "FLEET", "ORCHESTRATOR", "SCRIPT", "can_run", "environment_here", "run", "start"]

SCRIPT: Final = str(Path(sys.executable).with_name("smooth-orchestrate"))
"""The installed program."""

DJANGO: Final = (
    "django.contrib.postgres.operations",
    "django.core.management.commands.migrate",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    *(("django.db.backends.mysql.base",) if find_spec("MySQLdb") else ()),
)
"""What commands of `manage.py` import; nothing of it needs settings."""

ORCHESTRATOR: Final = (
    "asyncpg",
    "smooth_orchestrator.cli",
    "smooth_orchestrator.cli.execution",
    "smooth_orchestrator.config",
    "smooth_orchestrator.journal.sqlite",
    "smooth_orchestrator.runner",
)
"""What commands of `smooth-orchestrate` import, and Django is not of it."""

FLEET: Final = (
    *ORCHESTRATOR,
    "smooth_orchestrator.journal.postgres",
    "smooth_orchestrator.remote.transport",
    "smooth_orchestrator.remote.working",
)
"""What they import where a fleet does the work, and what its machines do."""

_SERVER: Final = Path(__file__).with_name("warm_server.py")
# An interpreter obeys these when it starts; the servers write no bytecode either.
_OF_INTERPRETERS: Final = ("PYTHON", "LANG", "LC_")
_NO_BYTECODE: Final = "PYTHONDONTWRITEBYTECODE"
_PATIENCE_S: Final = 90.0


def can_run(directory: Path, environment: Mapping[str, str]) -> bool:
    """Return whether a command would do there what it does in an interpreter of its own."""
    hides_a_driver = (directory / "psycopg.py").exists()
    return not hides_a_driver and _of_interpreter(environment) == _of_interpreter(environment_here())


def run(
    program: Sequence[str], directory: Path, environment: Mapping[str, str], *, imported: tuple[str, ...]
) -> tuple[int, str, str]:
    """Run a program to its end.

    Args:
        program: the file of its source, and the arguments of its command line.
        directory: where.
        environment: of the process.
        imported: the modules that it is to have imported.

    Returns:
        Its return code as `subprocess` tells it, and what it wrote to stdout and to stderr.

    Raises:
        RuntimeError: it did not begin.
        TimeoutError: it does not end.
    """
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        with _started(program, directory, environment, imported, stdout.fileno(), stderr.fileno()) as (_pid, answers):
            code = _number(answers, program)
        for file in (stdout, stderr):
            file.seek(0)
        return code, stdout.read(), stderr.read()


def start(
    program: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    *,
    imported: tuple[str, ...],
    output: Path,
) -> int:
    """Start a program, of which the caller takes care, and return its process id; see `run`.

    Args:
        program: the file of its source, and the arguments of its command line.
        directory: where.
        environment: of the process.
        imported: the modules that it is to have imported.
        output: the file for what it writes to stdout and to stderr.
    """
    with (
        output.open("wb") as file,
        _started(program, directory, environment, imported, file.fileno(), file.fileno()) as (pid, _answers),
    ):
        return pid


@contextmanager
def _started(
    program: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    imported: tuple[str, ...],
    stdout: int,
    stderr: int,
) -> Iterator[tuple[int, int]]:
    """Have a program begin, and yield its process id, and the descriptor that tells its return code."""
    command = {"arguments": [*program], "directory": str(directory), "environment": {**environment}}
    answers, writer = os.pipe()
    try:
        try:
            socket.send_fds(_server(imported), [json.dumps(command).encode()], [stdout, stderr, writer])
        finally:
            os.close(writer)
        yield _number(answers, program), answers
    finally:
        os.close(answers)


def _number(answers: int, program: Sequence[str]) -> int:
    if not select.select([answers], [], [], _PATIENCE_S)[0]:
        raise TimeoutError(f"{program} does not end")
    if not (answer := os.read(answers, WIDTH)):
        raise RuntimeError("the process that has imported everything is gone")
    return int(answer)


@cache
def _server(imported: tuple[str, ...]) -> socket.socket:
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        server = subprocess.Popen(
            [sys.executable, "-B", "-P", _SERVER, str(its.fileno()), *imported],
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
    return {
        name: value for name, value in environment.items() if name.startswith(_OF_INTERPRETERS) and name != _NO_BYTECODE
    }
