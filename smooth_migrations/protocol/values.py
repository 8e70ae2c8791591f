"""What commands and events carry."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Before", "OtherAliases", "Step"]


class OtherAliases(StrEnum):
    """What happens when a migration reaches another alias than the one it is run for."""

    REFUSE = "refuse"
    ALLOW = "allow"


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
