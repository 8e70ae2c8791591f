"""One MariaDB database of a test, in the forms in which the parts under test want to be told of it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from tests.support.mariadb_server import MariadbServer

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

__all__ = ["MariadbDatabase", "temporary_mariadb_database"]


@dataclass(frozen=True, slots=True)
class MariadbDatabase:
    """A database on a real server.

    Args:
        server: the server.
        name: the database's name there.
    """

    server: MariadbServer
    name: str

    @property
    def dsn(self) -> str:
        """Its URL, as the server's administrator."""
        return self.server.dsn(self.name)

    @property
    def django(self) -> dict[str, Any]:
        """A value of Django's `DATABASES`."""
        return self.server.django(self.name)

    def connect(self) -> AbstractContextManager["Connection"]:
        """Open a session that commits each statement by itself, closed with the block."""
        return self.server.connect(self.name)


@contextmanager
def temporary_mariadb_database(server: MariadbServer) -> Iterator[MariadbDatabase]:
    """Create a database with a name of its own; drop it with the block."""
    name = f"test_{uuid4().hex[:12]}"
    server.create_database(name)
    try:
        yield MariadbDatabase(server, name)
    finally:
        server.drop_database(name)
