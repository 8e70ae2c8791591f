"""What is known of a table whose rows are compared, and what each vendor has to say of it."""

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["MAX_BYTES", "MAX_ROWS", "UNREADABLE", "Column", "Table", "UnknownError", "Vendor", "Written"]

MAX_ROWS = 10_000
"""Of a table; the rows of a larger one are not compared."""

MAX_BYTES = 64 * 1024 * 1024
"""Of a table, as the server estimates it."""

UNREADABLE = "\0"
"""What a server gives for a value that it cannot give whole."""


class UnknownError(Exception):
    """It cannot be told exactly which rows were changed; the text says why."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that is written, not computed.

    Args:
        name: quoted.
        read: an expression that gives its value as text, without loss.
        write: an expression that gives the value, of such a text as its parameter; a per cent sign is doubled.
    """

    name: str
    read: str
    write: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Args:
        name: quoted, with its schema where there are schemas.
        columns: in order.
        key: the places of the primary key's among these; empty where there is none.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]


@dataclass(slots=True)
class Written:
    """What a transaction has been told to write.

    Args:
        texts: the statements, each once.
        is_effective: whether the server has said of one that it found rows.
        is_batched: whether the driver ran one of them in pieces of its own, which nobody counts.
    """

    texts: set[str] = field(default_factory=set)
    is_effective: bool = False
    is_batched: bool = False


class Vendor(Protocol):
    """One kind of server.

    Attributes:
        given: what an INSERT says that gives also values which the server would make.
    """

    given: str

    def is_fresh(self, connection: BaseDatabaseWrapper) -> bool:
        """Return whether each statement sees what is committed at its moment (READ COMMITTED). Only reads."""

    def prepare(self, other: BaseDatabaseWrapper) -> None:
        """Let a second session wait for no lock, and write values as the first one does."""

    def number(self, connection: BaseDatabaseWrapper) -> str | None:
        """Return what the open transaction has for itself once it has written, and no later one has. Only reads."""

    def has_written(self, connection: BaseDatabaseWrapper, written: Written) -> bool:
        """Return whether the open transaction may have changed rows. Only reads."""

    def lasting(self, connection: BaseDatabaseWrapper, sql: str) -> bool:
        """Return whether a statement names a table of which no ROLLBACK takes rows back. Only reads."""

    def tables(self, connection: BaseDatabaseWrapper, written: Written) -> Sequence[Table]:
        """Return the tables of which the open transaction may have changed rows. Only reads.

        Raises:
            UnknownError: these are not all, or one of them cannot be compared.
        """

    def defines(self, connection: BaseDatabaseWrapper, other: BaseDatabaseWrapper) -> bool:
        """Return whether the open transaction may have changed more than rows, such as by a function. Only reads.

        Args:
            connection: whose.
            other: a second session, which sees what is committed.
        """

    def outside(self, connection: BaseDatabaseWrapper) -> Collection[str]:
        """Return the quoted names of the tables to which foreign keys of other databases refer. Only reads."""

    def room(self, connection: BaseDatabaseWrapper) -> int:
        """Return how long a statement may be, in bytes. Only reads."""

    def known(self, connection: BaseDatabaseWrapper, names: Collection[str]) -> Sequence[Table]:
        """Return tables by their quoted names; only those that are there. Only reads.

        Raises:
            UnknownError: one of them cannot be compared.
        """

    def statements(self, connection: BaseDatabaseWrapper) -> int | None:
        """Return how many statements that change rows the session has run; None where nobody counts. Only reads."""

    def reading(self, connection: BaseDatabaseWrapper) -> AbstractContextManager[None]:
        """Let the open transaction read rows within, without a trace in it, and without its end by what fails."""

    def restoring(self, connection: BaseDatabaseWrapper, tables: Collection[Table]) -> AbstractContextManager[None]:
        """Let the open transaction change rows of these tables within, in any order; checked at the end.

        Raises:
            IntegrityError: a row refers to one that is not there.
        """

    def delete_one(self, table: Table, condition: str) -> str:
        """Return a statement that deletes one row of those that meet a condition."""
