"""What has failed where Django tells of something else: SQLite's editor asks the database once more when it is left."""

import traceback

from django.db.backends.sqlite3.schema import DatabaseSchemaEditor

__all__ = ["first_of"]

# It looks for rows without their parents after whatever has failed, also within a block that is broken by that.
_LEAVES = DatabaseSchemaEditor.__exit__.__code__


def first_of(error: BaseException) -> BaseException:
    """Return the error that an editor was left with, and that its own hides; else the error itself. Pure."""
    first = _hidden_by(error)
    return error if first is None else first


def _hidden_by(error: BaseException) -> BaseException | None:
    frames = [frame for frame, _line in traceback.walk_tb(error.__traceback__)]
    left = next((number for number, frame in enumerate(frames) if frame.f_code is _LEAVES), 0)
    before = error.__context__
    if not left or before is None:
        return None
    # What was being handled outside of the editor has nothing to do with it.
    came_through = (frame for frame, _line in traceback.walk_tb(before.__traceback__))
    return before if any(frame is frames[left - 1] for frame in came_through) else None
