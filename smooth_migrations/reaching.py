"""Connect to a server that may be away, or say nothing."""

from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["connect", "knock", "limit_waits"]

# A server that takes the connection and says nothing is given up, where the project's settings name no time of theirs.
_CONNECT_TIMEOUT_S: Final = 10

# Whoever waits for a page does not wait for as long; libpq takes no less than 2.
_KNOCK_TIMEOUT_S: Final = 3
_HAVE_TIMEOUT: Final = frozenset({"postgresql", "mysql"})


def connect(connection: BaseDatabaseWrapper) -> None:
    """Connect where that is not done, within a time.

    Args:
        connection: the database's.

    Raises:
        Error: the server is away, or does not let this role in.
    """
    options = connection.settings_dict.get("OPTIONS", {})
    if connection.vendor != "postgresql" or "connect_timeout" in options or "service" in options:
        connection.ensure_connection()
        return
    options["connect_timeout"] = _CONNECT_TIMEOUT_S
    try:
        connection.ensure_connection()
    finally:
        del options["connect_timeout"]


def knock(connection: BaseDatabaseWrapper) -> None:
    """Open a session of its own on a server, and close it: within seconds it is known that one can be had.

    The connection, and what the project's settings say, are left as they are: another thread may be at work by them. A
    time that they name is kept to. Nothing is done where there is a session already, or no server.

    Args:
        connection: the database's.

    Raises:
        DatabaseError: the server is away, says nothing, or does not let this role in.
    """
    if connection.connection is not None or connection.vendor not in _HAVE_TIMEOUT:
        return
    apart = connection.copy()
    options = apart.settings_dict.setdefault("OPTIONS", {})
    options.setdefault("connect_timeout", _KNOCK_TIMEOUT_S)
    options.pop("pool", None)
    with apart.wrap_database_errors:
        apart.get_new_connection(apart.get_connection_params()).close()


def limit_waits(connection: BaseDatabaseWrapper) -> None:
    """Have what follows in a transaction wait for no lock of others for longer than whoever waits for a page.

    On PostgreSQL alone.

    Args:
        connection: in a transaction.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{_KNOCK_TIMEOUT_S}s'")
