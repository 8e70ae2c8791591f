"""Two releases write and read by their own models all the time: before, during and after a deploy, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.skew.cases import CASES
from tests.support.skew.releases import assert_both_serve

if TYPE_CHECKING:
    from tests.support.postgres_database import PostgresDatabase

pytestmark = pytest.mark.timeout(180)

# One table alone is altered in these.
_SHORT = ("add a field", "rename a field", "characters become text")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in _SHORT else pytest.mark.long) for case in CASES]
)
def test_both_releases_serve_all_the_time(pg_databases: NewDatabases, tmp_path: Path, case: str) -> None:
    ours, stock = (cast("PostgresDatabase", pg_databases.new()) for _ in range(2))
    assert_both_serve(tmp_path, ours, stock, CASES[case])
