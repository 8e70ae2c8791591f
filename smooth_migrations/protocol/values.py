"""What commands and events carry."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["OWN_UNDO_FAILED", "Before", "ErrorInfo", "OtherAliases", "Step"]

OWN_UNDO_FAILED: Final = "OwnUndoFailed"
"""The type of an error of what a migration registered with `on_rollback`: nothing else undoes that."""


class OtherAliases(StrEnum):
    """What happens when a migration reaches another alias than the one it is run for."""

    REFUSE = "refuse"
    ALLOW = "allow"


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


@dataclass(frozen=True, slots=True)
class Before:
    """What an undo must know of a database as it was before a call.

    Args:
        is_empty: whether it held nothing of its user's: its undo is to hold nothing again.
        has_records: whether it had the table in which Django records migrations.
        extensions: those that PostgreSQL had already.
        schemas: those that PostgreSQL had already.
    """

    is_empty: bool = False
    has_records: bool = True
    extensions: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One migration that a call moved, so that it can be moved back.

    Args:
        app: the app's label.
        name: the migration's name.
        backwards: whether it was unapplied.
        fake: whether it was only recorded.
    """

    app: str
    name: str
    backwards: bool = False
    fake: bool = False

    def __str__(self) -> str:
        return f"{self.app}.{self.name}"
