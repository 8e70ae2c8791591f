"""Where in a migration's file an error has come from."""

import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from django.db.migrations import Migration

from smooth_migrations.lint.source import Source

__all__ = ["Origin", "origin_of"]

_MOVES: Final = (Migration.apply.__code__, Migration.unapply.__code__)


@dataclass(frozen=True, slots=True)
class Origin:
    """A place in a migration.

    Args:
        operation: the operation at work, in Django's words.
        place: `file:line` of the migration's own code at work, else of the operation, else of the class.
    """

    operation: str
    place: str


def origin_of(error: BaseException) -> Origin | None:
    """Return where in a migration an error was raised; None where it was raised in none.

    A project's operations may describe themselves by any code, and have any file: what cannot be told is left out.
    """
    try:
        return _origin_of(error)
    except Exception:  # noqa: BLE001 - it is an error that is to be told of, and no other one instead
        return None


def _origin_of(error: BaseException) -> Origin | None:
    frames = [*traceback.walk_tb(error.__traceback__)]
    moves = [number for number, (frame, _line) in enumerate(frames) if frame.f_code in _MOVES]
    if not moves:
        return None
    frame, _line = frames[moves[-1]]
    migration, operation = frame.f_locals["self"], frame.f_locals.get("operation")
    if operation is None:
        return None
    source = Source.of(migration)
    number = next((at for at, each in enumerate(migration.operations) if each is operation), None)
    line = _own_line(source.path, frames[moves[-1] :])
    if line is None:
        line = source.line if number is None else source.line_of(number)
    return Origin(operation.describe(), f"{source.path}:{line}")


def _own_line(path: Path, frames: list[tuple[FrameType, int]]) -> int | None:
    """Return the line of the file that was at work last."""
    lines = [line for frame, line in frames if Path(frame.f_code.co_filename).resolve() == path]
    return lines[-1] if lines else None
