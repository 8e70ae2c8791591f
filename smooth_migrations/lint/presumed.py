"""What nobody says without a database: tables that were there before are taken to hold rows, a server to be usual."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.state import ProjectState

from smooth_migrations.losses import Tables

__all__ = ["PresumedTables", "without_server"]

# What Django asks a server before it names a type or says what it can do.
_SERVERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "postgresql": {"pg_version": 180000},
    "mysql": {
        "mysql_server_data": {
            "version": "11.4.0-MariaDB",
            "sql_mode": "STRICT_TRANS_TABLES",
            "default_storage_engine": "InnoDB",
            "sql_auto_is_null": False,
            "lower_case_table_names": False,
            "has_zoneinfo_database": True,
        }
    },
}


class PresumedTables(Tables):
    """The tables of a project, without its database.

    Args:
        connection: the database's. Nothing is asked of it but what it can do.
        state: the project's.
        existing: the models that have tables there.
    """

    def __init__(
        self, connection: BaseDatabaseWrapper, state: ProjectState, existing: Iterable[tuple[str, str]]
    ) -> None:
        super().__init__(connection, state)
        self._before = {self._names[key] for key in existing}

    def have_rows(self, key: tuple[str, str], condition: str = "TRUE") -> bool:
        """Return whether a model's table was there before."""
        del condition
        return self._names.get(key) in self._before


def without_server(connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
    """Return a connection that is never opened, and says of its server what most would.

    Args:
        connection: the database's, which stays as it is.
    """
    alone = connections.create_connection(connection.alias)
    alone.__dict__.update(_SERVERS.get(alone.vendor, {}))
    return alone
