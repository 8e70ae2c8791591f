"""Write a file so that nobody ever finds half of it."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["OWNER_ALONE", "place_of", "write_whole"]

OWNER_ALONE: Final = stat.S_IRUSR | stat.S_IWUSR


def place_of(path: Path) -> Path:
    """Return where a file stands that is reached through symbolic links, which may lead nowhere."""
    return Path(os.path.realpath(path))


def write_whole(path: Path, text: str, *, mode: int = OWNER_ALONE) -> None:
    """Write a text to a file beside the one that is meant, and put it in its place.

    A file that was there before keeps its permissions. Safe to repeat. A process that is killed meanwhile leaves what
    was there, and a file `.smooth-…` beside it.

    Args:
        path: of the file; a symbolic link stays one.
        text: what it holds from then on.
        mode: the permissions of one that was not there.

    Raises:
        OSError: it cannot be written, or what stands there is no file; nothing is left of the attempt.
    """
    place = place_of(path)
    if place.exists():
        if not place.is_file():
            raise OSError(f"{place} is no regular file")
        mode = stat.S_IMODE(place.stat().st_mode)
    descriptor, name = tempfile.mkstemp(prefix=".smooth-", dir=place.parent)
    draft = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:  # noqa: PTH123 - it is open
            file.write(text)
            file.flush()
            os.fchmod(descriptor, mode)
            # Otherwise a loss of power may leave the new name on an empty file.
            os.fsync(descriptor)
        draft.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
