"""What a server or a file system calls a database, the same by whatever name it was reached."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.db import Error, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import OtherDatabase

__all__ = ["missing_file", "physical_of", "refuse_another"]


def missing_file(connection: BaseDatabaseWrapper) -> Path | None:
    """Return the file of a database of SQLite that is not there; whoever connects makes it. Connects to nothing."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor != "sqlite" or ":memory:" in name or "mode=memory" in name:
        return None
    path = Path(unquote(urlsplit(name).path) if name.startswith("file:") else name)
    return None if path.exists() else path


def physical_of(connection: BaseDatabaseWrapper) -> str:
    """Return what names a database beyond its address, or nothing where nobody may ask for it. Only reads.

    On PostgreSQL that is its cluster's identifier (manual, pg_control_system) and its own number there.
    """
    try:
        if connection.vendor == "postgresql":
            # A savepoint of its own: nobody may ask, and then the transaction goes on.
            with transaction.atomic(connection.alias), connection.cursor() as cursor:
                cursor.execute(
                    "SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database "
                    "WHERE datname = current_database()"
                )
                return str((cursor.fetchone() or ("",))[0])
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("PRAGMA database_list")  # the file's path, however the settings name it
                path = (cursor.fetchone() or (0, "main", ""))[2]
            if not path:
                return ""  # it is in memory
            status = Path(path).stat()
            return f"{status.st_dev}/{status.st_ino}"
    except (Error, OSError):
        pass  # nobody may ask the server, or there is no file: names must do
    return ""


def refuse_another(connection: BaseDatabaseWrapper, wanted: str) -> None:
    """Make sure that this is the database which a coordinator means, as far as the server tells. Only reads.

    Args:
        connection: of the alias, in no transaction.
        wanted: what its server must call it; empty where nobody knows.

    Raises:
        OtherDatabase: it is known to be another one.
    """
    if wanted and (found := physical_of(connection)) and found != wanted:
        raise OtherDatabase(
            f"the settings here name another database: its server calls it {found}, and the one that was looked at "
            f"{wanted}",
            hint="have the settings on each machine name the coordinator's databases",
        )
