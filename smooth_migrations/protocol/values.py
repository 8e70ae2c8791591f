"""What commands and events carry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "Back",
    "Before",
    "ContractHalf",
    "Left",
    "Marker",
    "OtherAliases",
    "PreparedTransaction",
    "Received",
    "Step",
]


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
        digest: of its file, where that was read; two steps are the same whatever it is.
    """

    app: str
    name: str
    backwards: bool = False
    fake: bool = False
    digest: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.app}.{self.name}"


@dataclass(frozen=True, slots=True)
class Received:
    """Rows that Django's own receivers of `post_migrate` have made, by primary key, so that they can be taken back.

    Args:
        content_types: of `django.contrib.contenttypes`.
        permissions: of `django.contrib.auth`.
        renamed: of the permissions that were there before and are called otherwise now, with the codename and the
            name that they had.
    """

    content_types: tuple[int, ...] = ()
    permissions: tuple[int, ...] = ()
    renamed: tuple[tuple[int, str, str], ...] = ()

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "Received":
        """Return what JSON has kept of it."""
        renamed = tuple((int(key), str(codename), str(name)) for key, codename, name in data.get("renamed", ()))
        return cls(tuple(data.get("content_types", ())), tuple(data.get("permissions", ())), renamed)


@dataclass(frozen=True, slots=True)
class Back:
    """A committed run that is to be taken back.

    Args:
        run_id: the run.
        steps: what it moved on this database, in order.
        received: what it made beside.
        discards: whether values and rows may be lost that were written since.
    """

    run_id: str
    steps: tuple[Step, ...]
    received: Received = field(default_factory=Received)
    discards: bool = False


@dataclass(frozen=True, slots=True)
class ContractHalf:
    """What is held back of an operation until the release before is gone.

    Args:
        run_id: the run that deployed the other half.
        migration: `app.name`.
        description: what is left to be done, in words.
        age_s: for how long it has been held back, in seconds, by the database's clock.
    """

    run_id: str
    migration: str
    description: str
    age_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.migration}: {self.description}"


@dataclass(frozen=True, slots=True)
class Marker:
    """That a run has moved a database for good, as it stands written there.

    Args:
        run_id: the run.
        epoch: of its turn.
        digest: of the plan by which it did so.
        command: what the run was: `deploy`, `rollback` or `finalise`.
    """

    run_id: str
    epoch: int
    digest: str
    command: str = "deploy"


@dataclass(frozen=True, slots=True)
class PreparedTransaction:
    """A transaction that stands prepared on a server, with its locks.

    Args:
        gid: its name.
        database: the one in which it was prepared, as the server names it.
        owner: the role that prepared it.
        age_s: for how long it has stood so, in seconds, by the server's clock.
        is_here: whether that is the database that was asked.
        is_ours: whether its name begins like this program's.
    """

    gid: str
    database: str
    owner: str
    age_s: int
    is_here: bool
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Left:
    """What a call that has not ended has left in a database, as the database's own journal tells.

    Args:
        call_id: the call's: its run's id, where it belongs to one.
        steps: what it has moved for good, in order, and what was at work.
        is_being_undone: whether it was being taken back.
        is_undone: whether all of it is taken back, and the schema is not what it was before.
    """

    call_id: str
    steps: tuple[Step, ...] = ()
    is_being_undone: bool = False
    is_undone: bool = False
