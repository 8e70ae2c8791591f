"""What the tests on real databases may ask for."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases


@pytest.fixture(params=list(Vendor))
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty databases: of each kind in turn."""
    server = request.getfixturevalue("pg_server") if request.param is Vendor.POSTGRESQL else None
    with ExitStack() as stack:
        yield NewDatabases(server, tmp_path, stack)
