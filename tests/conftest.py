"""What every test may ask for."""

from collections.abc import Iterator

import pytest

from tests.support.mariadb_database import MariadbDatabase, temporary_mariadb_database
from tests.support.mariadb_server import MariadbServer, why_not
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, which asyncpg needs."""
    return "asyncio"


@pytest.fixture(scope="session")
def pg_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server, shared by the tests of one process."""
    with PostgresServer(settings=THROW_AWAY) as server:
        yield server


@pytest.fixture(scope="session")
def second_pg_server() -> Iterator[PostgresServer]:
    """Another one, for what must not depend on a single server."""
    with PostgresServer(settings=THROW_AWAY) as server:
        yield server


@pytest.fixture
def pg_database(pg_server: PostgresServer) -> Iterator[PostgresDatabase]:
    """An empty database of this test's own."""
    with temporary_database(pg_server) as database:
        yield database


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariadbServer]:
    """A MariaDB server, shared by the tests of one process; they are skipped where none can be run."""
    if reason := why_not():
        pytest.skip(reason)
    with MariadbServer() as server:
        yield server


@pytest.fixture
def mariadb_database(mariadb_server: MariadbServer) -> Iterator[MariadbDatabase]:
    """An empty MariaDB database of this test's own."""
    with temporary_mariadb_database(mariadb_server) as database:
        yield database
