"""Processes that a migration forks: what the call commits and takes back is their parent's."""

import os
import sys
import traceback

__all__ = ["leave_if_forked"]


def leave_if_forked(pid: int, error: BaseException | None = None) -> None:
    """End this process at once, with its own exit code, if it is not the one that began the call.

    One that ends by `sys.exit()` or an exception would otherwise come to the call's undo, over the session that it has
    inherited; and at the interpreter's end SQLite rolls back what its parent has begun.

    Args:
        pid: of the process that began the call.
        error: what ends this one; None where its code has returned.
    """
    if os.getpid() == pid:
        return
    code: object = 0
    if isinstance(error, SystemExit):
        code = error.code or 0
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code if isinstance(code, int) else 1)
