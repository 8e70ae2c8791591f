"""Several commands of PostgreSQL in one message."""

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["send_together"]


def send_together(connection: BaseDatabaseWrapper, commands: Sequence[str]) -> None:
    """Send commands without parameters, in one round trip where that is possible; the server runs one after the other.

    A driver that prepares whatever it sends can send each only by itself (SQLSTATE 42601 otherwise): psycopg does so
    with `server_side_binding` and a `prepare_threshold` of 0. With another one it never counts such messages.

    Args:
        connection: of a database of PostgreSQL.
        commands: in order.
    """
    prepares = getattr(connection.connection, "prepare_threshold", None) == 0
    with connection.cursor() as cursor:
        for text in commands if prepares else (";\n".join(commands),):
            cursor.execute(text, None)
