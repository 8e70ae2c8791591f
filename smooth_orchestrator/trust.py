"""Who else could have written a plan: it names programs that are run, and databases that are changed."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["doubts"]

_ROOT = 0


def doubts(path: Path) -> Iterator[str]:
    """Yield, in words, why a plan might be somebody else's; nothing for what is no file. Only reads."""
    try:
        file, directory = path.stat(), path.resolve().parent.stat()
    except OSError:
        return
    if not stat.S_ISREG(file.st_mode):
        return  # and no plan
    if file.st_uid not in {_ROOT, os.geteuid()}:
        yield f"the plan {path} belongs to another user ({_name(file.st_uid)}), who says by it what is run"
    if file.st_mode & stat.S_IWOTH:
        yield f"the plan {path} can be written by every user of this machine; chmod o-w takes that away"
    elif directory.st_mode & stat.S_IWOTH and not directory.st_mode & stat.S_ISVTX:
        yield f"every user of this machine can put another file in the place of the plan {path}: see its directory"


def _name(uid: int) -> str:
    import pwd  # noqa: PLC0415 - for a doubt alone

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
