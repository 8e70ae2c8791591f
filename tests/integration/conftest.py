"""What the tests on real databases may ask for."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.histories import Vendor
from tests.support.mariadb_server import MariadbServer
from tests.support.new_databases import NewDatabases
from tests.support.postgres_server import PostgresServer

_VENDORS_OF = ("databases", "every_database", "stepping_databases")
_SERVERS = {Vendor.POSTGRESQL: "pg_server", Vendor.MYSQL: "mariadb_server"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Make `long_on` mean `long` on the kinds of database that it names."""
    for item in items:
        mark = item.get_closest_marker("long_on")
        chosen = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if mark is not None and {chosen.get(name) for name in _VENDORS_OF} & {*mark.args}:
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=[Vendor.POSTGRESQL, Vendor.SQLITE])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty databases of each kind in turn that rolls DDL back."""
    with _new_databases(request, tmp_path) as databases:
        yield databases


@pytest.fixture(params=list(Vendor))
def every_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty databases of each kind in turn, also of that which commits at every DDL statement."""
    with _new_databases(request, tmp_path) as databases:
        yield databases


@pytest.fixture(params=[Vendor.POSTGRESQL, Vendor.MYSQL])
def stepping_databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty databases of each kind in turn on which a migration with `atomic = False` is committed by itself."""
    with _new_databases(request, tmp_path) as databases:
        yield databases


@pytest.fixture
def pg_databases(pg_server: PostgresServer, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty PostgreSQL databases."""
    with ExitStack() as stack:
        yield NewDatabases(pg_server, tmp_path, stack)


@pytest.fixture
def mariadb_databases(mariadb_server: MariadbServer, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty MariaDB databases."""
    with ExitStack() as stack:
        yield NewDatabases(mariadb_server, tmp_path, stack)


@contextmanager
def _new_databases(request: pytest.FixtureRequest, directory: Path) -> Iterator[NewDatabases]:
    name = _SERVERS.get(request.param)
    with ExitStack() as stack:
        yield NewDatabases(request.getfixturevalue(name) if name else None, directory, stack)
