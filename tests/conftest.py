"""What every test may ask for."""

import compileall
import os
from collections.abc import Iterator
from pathlib import Path

import django
import pytest
from django.db.backends.postgresql.features import DatabaseFeatures
from hypothesis import settings

from tests.support import browser, over_fleet
from tests.support.fleet_cases import chosen, why_left_out
from tests.support.mariadb_database import MariadbDatabase, temporary_mariadb_database
from tests.support.mariadb_server import MariadbServer, why_not
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.postgres_versions import NEWEST, VERSIONS, Unavailable, programs_of
from tests.support.sampling import in_share
from tests.support.small_project import DRIVER

_FLEET_S = 300
# A machine that is busy makes no example wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, which asyncpg needs."""
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let another server than the wheel's be chosen, another driver, a share of the tests, and a fleet."""
    parser.addoption("--postgresql", choices=VERSIONS, default=NEWEST, help="The server's major version.")
    parser.addoption("--driver", choices=("psycopg", "psycopg2"), default="psycopg", help="Of small projects.")
    parser.addoption("--share", default="1/1", help="Such as 1/2: of the tests that start processes, the first half.")
    parser.addoption("--fleet", action="store_true", help="Three machines of a fleet do what commands ask for.")
    parser.addoption("--fleet-seed", type=int, default=0, help="Which hundred of what is killed at every point.")


def pytest_configure(config: pytest.Config) -> None:
    """Tell the small projects of their driver, and compile what processes import that may not write that down."""
    os.environ[DRIVER] = config.getoption("driver")
    if not hasattr(config, "workerinput"):
        for package in ("smooth_migrations", "smooth_orchestrator"):
            compileall.compile_dir(config.rootpath / package, quiet=1)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not of the share that was asked for, and what is nothing for a fleet."""
    share = config.getoption("share")
    names = frozenset(item.nodeid for item in items)
    wanted = chosen(names, config.getoption("fleet_seed")) if config.getoption("fleet") else names

    def is_wanted(item: pytest.Item) -> bool:
        is_of_first = item.get_closest_marker("older_django") is not None
        return item.nodeid in wanted and in_share(item.nodeid, share, is_of_first=is_of_first)

    if others := [item for item in items if not is_wanted(item)]:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if is_wanted(item)]
    if config.getoption("fleet"):
        for item in items:
            _send_over_fleet(item)


def _send_over_fleet(item: pytest.Item) -> None:
    """Give a test the time that machines take, which are taken for lost after 15 s; skip what is nothing for them."""
    item.add_marker(pytest.mark.timeout(_FLEET_S), append=False)
    if (reason := why_left_out(item.nodeid)) is not None:
        item.add_marker(pytest.mark.skip(reason=f"not over a fleet: {reason}"))


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say of which sample a run is."""
    seed = config.getoption("fleet_seed")
    return f"fleet: three machines, --fleet-seed {seed}" if config.getoption("fleet") else None


@pytest.fixture(scope="session", autouse=True)
def machines(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """With `--fleet`, machines that do what the program is asked for."""
    if not pytestconfig.getoption("fleet"):
        yield
        return
    with (
        PostgresServer(settings=THROW_AWAY, max_connections=300) as server,
        over_fleet.turned_on(server, tmp_path_factory.mktemp("machines")),
    ):
        yield


@pytest.fixture(scope="session")
def pg_programs(pytestconfig: pytest.Config) -> Path | None:
    """The programs of the server that was asked for; where they are not, its tests are skipped."""
    version = pytestconfig.getoption("postgresql")
    needed, *_ = DatabaseFeatures.minimum_database_version or (0,)
    if int(version) < needed:
        pytest.skip(f"Django {django.get_version()} needs PostgreSQL {needed}")
    try:
        return programs_of(version)
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def chromium() -> browser.Browser:
    """A browser; where there is none, its tests are skipped."""
    try:
        return browser.browser()
    except browser.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def pg_server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A PostgreSQL server, shared by the tests of one process."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture(scope="session")
def second_pg_server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """Another one, for what must not depend on a single server."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
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
