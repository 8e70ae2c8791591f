"""Tables as they were before something, and back to that: what reverse operations alone do not give back exactly."""

from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from django.db.backends.base.base import BaseDatabaseWrapper

if TYPE_CHECKING:
    from smooth_migrations.undo.renames import Renames

__all__ = ["EXTENSIONS", "Definitions", "restore_tables", "take_tables"]

EXTENSIONS = "extensions"
"""Where the definitions of PostgreSQL name the extensions that are there."""

Definitions: TypeAlias = Mapping[str, Any]
"""Of all tables but the product's own, as JSON can hold it; each vendor knows how."""


class _Vendor(Protocol):
    def take(self, connection: BaseDatabaseWrapper) -> Definitions:
        """Return the definitions of all tables. Only reads."""

    def restore(
        self, connection: BaseDatabaseWrapper, before: Definitions, renames: "Renames", named: Container[str]
    ) -> None:
        """Give each table that was named the definition that it had, with the rows that are in it. Safe to repeat."""


def take_tables(connection: BaseDatabaseWrapper) -> Definitions | None:
    """Return the definitions of all tables; None on a server of which nobody knows how. Only reads."""
    vendor = _vendor(connection.vendor)
    return None if vendor is None else vendor.take(connection)


def restore_tables(
    connection: BaseDatabaseWrapper, before: Definitions, named: Container[str], renames: "Renames | None" = None
) -> None:
    """Give each table that was named the definition that it had, with the rows that are in it. Safe to repeat.

    Takes an exclusive lock on each table that differs.

    Args:
        connection: the target's.
        before: what `take_tables` returned.
        named: the tables that may have been changed; any other that differs is another process's affair.
        renames: what a broken operation may have renamed.
    """
    from smooth_migrations.undo.renames import Renames  # noqa: PLC0415 - an undo's alone

    vendor = _vendor(connection.vendor)
    if vendor is not None:
        vendor.restore(connection, before, renames or Renames(), named)


def _vendor(name: str) -> _Vendor | None:
    if name == "mysql":
        from smooth_migrations.undo.tables.mysql import MySQL  # noqa: PLC0415 - a call needs one of them at most

        return MySQL()
    if name == "postgresql":
        from smooth_migrations.undo.tables.postgresql import PostgreSQL  # noqa: PLC0415 - as above

        return PostgreSQL()
    if name == "sqlite":
        from smooth_migrations.undo.tables.sqlite import SQLite  # noqa: PLC0415 - as above

        return SQLite()
    return None
