"""Connect to a server that may be away, or say nothing."""

from typing import Final

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["connect"]

# A server that takes the connection and says nothing is given up, where the project's settings name no time of theirs.
_CONNECT_TIMEOUT_S: Final = 10


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
