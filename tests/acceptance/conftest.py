"""What several of the tests on whole fleets may ask for."""

from collections.abc import Iterator

import pytest

from tests.support.postgres_server import PostgresServer
from tests.support.tiers import Releases, releases_on


@pytest.fixture(scope="module")
def releases(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Releases]:
    """A fleet of each tier before a release, and what a deploy makes of it."""
    with releases_on(tmp_path_factory.mktemp("releases"), pg_server, second_pg_server) as found:
        yield found


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    """Two servers."""
    return pg_server, second_pg_server
