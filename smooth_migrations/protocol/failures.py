"""How an error is told to those who did not see it happen."""

from dataclasses import dataclass
from typing import Final

__all__ = ["NOT_HELD", "OWN_UNDO_FAILED", "ErrorInfo"]

NOT_HELD: Final = "NotHeld"
"""The type of an error of what goes back, but not within a transaction that stays open."""

OWN_UNDO_FAILED: Final = "OwnUndoFailed"
"""The type of an error of what a migration registered with `on_rollback`: nothing else undoes that."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error as users see it: no traceback of ours, no secret.

    Args:
        type: the exception's class name, or a stable code of ours.
        message: in words.
        sqlstate: the server's SQLSTATE, where there is one.
        migration: `app.name` of the migration at work, where there was one.
        hint: what to do about it.
        detail: what the server adds, which may quote a row: for the report alone, never for the log.
        operation: of the migration, in Django's words, where one was at work.
        place: `file:line` of it, as far as that is known.
        blockers: who held the lock that was not to be had, in words.
        traceback: for the log alone.
        causes: further errors that came with it, such as a failing rollback.
    """

    type: str
    message: str
    sqlstate: str | None = None
    migration: str | None = None
    hint: str | None = None
    traceback: str | None = None
    causes: tuple["ErrorInfo", ...] = ()
    detail: str | None = None
    operation: str | None = None
    place: str | None = None
    blockers: tuple[str, ...] = ()
