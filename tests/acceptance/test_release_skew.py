"""Two releases serve on three databases of two servers all the time, while one plan takes these there, back and on."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.skew.by_plan import ByPlan
from tests.support.skew.cases import CASES
from tests.support.skew.releases import Releases, assert_both_serve

pytestmark = [pytest.mark.timeout(400), pytest.mark.long]

_CHOSEN = (
    "rename a field",
    "rename a model that has many to many",
    "remove a foreign key",
    "null is not allowed",
    "several at once",
)


@pytest.fixture
def three(pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[list[PostgresDatabase]]:
    """Empty databases, two of them on one server."""
    with ExitStack() as stack:
        yield [stack.enter_context(temporary_database(each)) for each in (pg_server, pg_server, second_pg_server)]


@pytest.mark.parametrize("case", _CHOSEN)
def test_both_releases_serve_on_every_database(
    three: list[PostgresDatabase], pg_database: PostgresDatabase, tmp_path: Path, case: str
) -> None:
    ours = Releases(tmp_path / "ours", CASES[case], *three)
    stock = Releases(tmp_path / "stock", CASES[case], pg_database)
    assert_both_serve(ours, ByPlan(ours), stock)
