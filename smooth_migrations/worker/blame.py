"""Where in a project's own code an error was raised that keeps Django, or its migrations, from being loaded."""

import traceback
from pathlib import Path
from typing import Final

__all__ = ["with_place"]

_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_LIBRARY: Final = Path(traceback.__file__).parent
_OURS: Final = Path(__file__).parents[1]


def with_place(message: str, error: BaseException) -> str:
    """Return a message with the file and line of the project's code that was at work last, where one was.

    Args:
        message: what is said of the error.
        error: as it was raised.
    """
    place = _place_of(error)
    return f"{message} (at {place})" if place else message


def _place_of(error: BaseException) -> str | None:
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}"  # nothing of that file was ever at work
    frames = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    return next((f"{path}:{line}" for path, line in reversed(frames) if _is_own(path)), None)


def _is_own(path: Path) -> bool:
    """Return whether a file is the project's: none of Python's, of an installed package's, or of ours."""
    is_others = path.is_relative_to(_LIBRARY) or path.is_relative_to(_OURS) or not _INSTALLED.isdisjoint(path.parts)
    return path.is_absolute() and not is_others  # what is no file has a name such as <frozen importlib._bootstrap>
