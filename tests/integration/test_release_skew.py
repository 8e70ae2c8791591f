"""Two releases write and read by their own models all the time: before, during and after a deploy, and back."""

from pathlib import Path

import pytest

from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.skew.cases import CASES
from tests.support.skew.refused import REFUSED
from tests.support.skew.releases import ByCommand, Releases, assert_both_serve, assert_refused

pytestmark = pytest.mark.timeout(180)

# One table alone is altered in these.
_SHORT = {
    Vendor.POSTGRESQL: ("add a field", "rename a field", "characters become text"),
    Vendor.SQLITE: ("a composite key",),
    Vendor.MYSQL: ("add a nullable field",),
}
_SHORT_REFUSED = {Vendor.SQLITE: ("rename a field",), Vendor.MYSQL: ("add a field", "rename a field")}
_SERVED = [
    pytest.param(vendor, case, marks=() if case in _SHORT[vendor] else pytest.mark.long)
    for vendor in Vendor
    for case in CASES
    if case not in REFUSED[vendor]
]
_REFUSED = [
    pytest.param(vendor, case, marks=() if case in _SHORT_REFUSED[vendor] else pytest.mark.long)
    for vendor, cases in REFUSED.items()
    for case in cases
]


@pytest.mark.parametrize(("every_database", "case"), _SERVED, indirect=["every_database"])
def test_both_releases_serve_all_the_time(every_database: NewDatabases, tmp_path: Path, case: str) -> None:
    ours, stock = (Releases(tmp_path / name, CASES[case], every_database.new()) for name in ("ours", "stock"))
    assert_both_serve(ours, ByCommand(ours), stock)


@pytest.mark.parametrize(("every_database", "case"), _REFUSED, indirect=["every_database"])
def test_what_has_no_halves_is_refused_by_name(every_database: NewDatabases, tmp_path: Path, case: str) -> None:
    assert_refused(Releases(tmp_path, CASES[case], every_database.new()), REFUSED[every_database.vendor][case])
