"""One database of a test, in the forms in which the parts under test want to be told of it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg

from tests.support.postgres_server import PostgresServer

__all__ = ["PostgresDatabase", "temporary_database"]


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """A database on a real server.

    Args:
        server: the server.
        name: the database's name there.
    """

    server: PostgresServer
    name: str

    @property
    def dsn(self) -> str:
        """Its URL, as the superuser."""
        return self.server.dsn(self.name)

    @property
    def asyncpg(self) -> dict[str, Any]:
        """The keyword arguments of `asyncpg.connect`."""
        return self.server.asyncpg(self.name)

    @property
    def django(self) -> dict[str, Any]:
        """A value of Django's `DATABASES`."""
        return self.server.django(self.name)

    def connect(self) -> AbstractContextManager[psycopg.Connection]:
        """Open a session that commits each statement by itself, closed with the block."""
        return self.server.connect(self.name)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Keep everybody out of it until the block ends; sessions there are ended."""
        with psycopg.connect(self.server.dsn("postgres"), autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS false'.encode())
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.name])
            try:
                yield
            finally:
                admin.execute(f'ALTER DATABASE "{self.name}" ALLOW_CONNECTIONS true'.encode())


@contextmanager
def temporary_database(server: PostgresServer, template: str | None = None) -> Iterator[PostgresDatabase]:
    """Create a database with a name of its own, a copy of `template` where given; drop it with the block."""
    name = f"test_{uuid4().hex[:12]}"
    server.create_database(name, template)
    try:
        yield PostgresDatabase(server, name)
    finally:
        server.drop_database(name)
