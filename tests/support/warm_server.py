"""A process that imports modules, configures nothing, and copies itself for each command that it is asked for.

Run as a script, with the number of a socket and the names of the modules. Each message is a request in JSON, with three
files: what the command's stdout and stderr are to be, and a pipe for its process id and, when it has ended, its return
code. The end of the socket is its own.
"""

import json
import os
import runpy
import signal
import socket
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any, Final

WIDTH: Final = 12
"""Of a number in that pipe, in characters."""

_LARGEST_REQUEST: Final = 200_000


def main() -> None:
    """Answer requests until nobody can ask any more; in each copy, run its command."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        message, fds, *_ = socket.recv_fds(requests, _LARGEST_REQUEST, 3)
        if not message:
            return
        if os.fork() == 0:
            requests.close()
            _attend(json.loads(message), *fds)
            return
        for fd in fds:
            os.close(fd)


def _attend(request: dict[str, Any], stdout: int, stderr: int, answer: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.close(stdout)
        os.close(stderr)
        os.write(answer, f"{pid:{WIDTH}}".encode())
        _pid, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):  # there is nobody who waits for what was only started
            os.write(answer, f"{os.waitstatus_to_exitcode(status):{WIDTH}}".encode())
        os._exit(0)
    os.close(answer)
    for fd, standard in ((stdout, sys.stdout), (stderr, sys.stderr)):
        os.dup2(fd, standard.fileno())
        os.close(fd)
    _run(**request)


def _run(arguments: list[str], directory: str, environment: dict[str, str]) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = arguments
    sys.path.insert(0, directory)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
