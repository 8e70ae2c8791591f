"""A long history that nobody here wrote, on one database, by `apply_migrations` alone: forwards, failing, and back.

PostgreSQL is tested with a whole fleet (`test_histories`). Stock `migrate` is the measure of success, what was there
before that of a failure.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.histories import HISTORIES, Vendor, execute
from tests.support.new_databases import NewDatabases
from tests.support.single_history import SingleHistory

# A busy machine takes minutes for a whole history on MariaDB, where each DDL statement is a transaction.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

_WAGTAIL = HISTORIES["wagtail"]
_LAST = "wagtailusers.0015_userprofile_keyboard_shortcuts"
_QUIET = ("--no-input", "--verbosity=0")


@pytest.fixture(params=[Vendor.SQLITE, Vendor.MYSQL], ids=["sqlite", "mariadb"])
def databases(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewDatabases]:
    server = request.getfixturevalue("mariadb_server") if request.param is Vendor.MYSQL else None
    with ExitStack() as stack:
        yield NewDatabases(server, tmp_path, stack)


def _assert_same(expected: str, found: str) -> None:
    # A comparison of two texts of thousands of lines would drown what differs.
    assert diff(expected, found)[:2000] == ""


def test_a_history_goes_forwards_and_back_as_stock_migrate_takes_it(databases: NewDatabases, tmp_path: Path) -> None:
    stock, ours = (SingleHistory(_WAGTAIL, databases.new(), tmp_path) for _ in range(2))
    for arguments in ([], ["wagtailsearchpromotions", "zero"], ["wagtailusers", "0008"], []):
        stock.succeed("migrate", *arguments, *_QUIET)
        ours.succeed("apply_migrations", *arguments, *_QUIET)
        _assert_same(stock.dump(), ours.dump())


def test_a_way_back_that_fails_changes_nothing(databases: NewDatabases, tmp_path: Path) -> None:
    ours = SingleHistory(_WAGTAIL, databases.new(), tmp_path)
    ours.succeed("migrate", *_QUIET)
    before = ours.dump()

    # Here stock `migrate` fails too, at the fourth migration: reverse code of wagtail's meets models of two states.
    failed = ours.manage("apply_migrations", "wagtaildocs", "zero", "--no-input")

    assert failed.returncode in {1, 3}, failed.printed
    _assert_same(before, ours.dump())


def test_a_failure_at_the_last_migration_leaves_an_older_release(databases: NewDatabases, tmp_path: Path) -> None:
    ours = SingleHistory(_WAGTAIL, databases.new(), tmp_path)
    ours.begin_older()
    before = ours.dump()
    ours.plant_a_failure(after=_LAST)
    if databases.vendor is Vendor.MYSQL:
        refused = ours.manage("apply_migrations", "--no-input")
        assert refused.returncode == 3, refused.printed
        assert "wagtailcore.0090_remove_grouppagepermission_permission_type: " in refused.printed
        _assert_same(before, ours.dump())
        # These rows hold what the reverse of that migration could not give back.
        execute(ours.database, "DELETE FROM wagtailcore_grouppagepermission")
        before = ours.dump()

    failed = ours.manage("apply_migrations", "--no-input")

    assert (failed.returncode, "ValueError: at the last" in failed.printed) == (1, True), failed.printed
    assert f"  Unapplying {_LAST}... OK\n" in failed.printed
    _assert_same(before, ours.dump())


def test_a_failure_at_the_last_migration_leaves_an_empty_database_empty(
    databases: NewDatabases, tmp_path: Path
) -> None:
    ours = SingleHistory(_WAGTAIL, databases.new(), tmp_path)
    before = ours.dump()
    ours.plant_a_failure(after=_LAST)

    failed = ours.manage("apply_migrations", *_QUIET)

    assert (failed.returncode, "ValueError: at the last" in failed.printed) == (1, True), failed.printed
    _assert_same(before, ours.dump())
