"""Write a file so that nobody ever finds half of it."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, text: str) -> None:
    """Write a text to a file beside the one that is meant, and put it in its place.

    For its owner alone, unless a file that was there before had other permissions. Safe to repeat. A process that is
    killed meanwhile leaves what was there, and a file `.smooth-…` beside it.

    Raises:
        OSError: it cannot be written, or what stands there is no file; nothing is left of the attempt.
    """
    place = path.resolve()
    mode = stat.S_IRUSR | stat.S_IWUSR
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
