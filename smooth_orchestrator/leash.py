"""Become a command that ends with whoever has started it, even where that is killed with SIGKILL.

Run as a script, as the first process of a session of its own. The first argument is the descriptor of one end of a pair
of sockets, of which the starter alone has the other; the command follows. This process becomes the command: its id,
parent, exit status and output are the command's. A process beside it, which is nobody's child, waits for the other end
to be closed, and kills what is then left of the session's process group. Where the command cannot be run, the number of
the system's error is written to the socket.
"""

import fcntl
import os
import signal
import sys
from contextlib import suppress

__all__: list[str] = []


def _main(leash: int, argv: list[str]) -> None:
    _watch(leash, os.getpid())
    fcntl.fcntl(leash, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    # An interpreter ignores them, and a command would inherit that.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - an argv of the plan's, and no shell
    except OSError as error:
        os.write(leash, str(error.errno).encode())


def _watch(leash: int, group: int) -> None:
    """Start the process that waits for the end of the starter: a grandchild, for which no command waits."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    os.setsid()  # what is killed with the command's group would not see to the rest
    if not os.fork():
        # Whoever reads what the command prints does not wait for this process.
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nothing, stream)
        with suppress(OSError):  # the group has ended
            os.read(leash, 1)
            os.killpg(group, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
