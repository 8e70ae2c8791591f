"""What the inspection says of the lock table, beside what PostgreSQL's own view of its locks says."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.dump import dump
from tests.support.histories import HISTORIES, SAME_ORDER, History
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_versions import NEWEST
from tests.support.shop import check_out, manage

_COUNT_LOCKS = Path(__file__).parents[1] / "support" / "count_locks.py"


@pytest.fixture
def at_most(pytestconfig: pytest.Config) -> float:
    """How many times too high the estimate may be; it is never too low.

    It is made for the newest server, which locks types and constraints that older ones leave alone.
    """
    return 1.4 if pytestconfig.getoption("postgresql") == NEWEST else 2.5


def _count(project: Path, environ: Mapping[str, str]) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-B", "-P", str(_COUNT_LOCKS)],
        check=False,
        cwd=project,
        env={**os.environ, **SAME_ORDER, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counted: dict[str, int] = json.loads(done.stdout)
    return counted


def _count_shop(project: Path, database: PostgresDatabase) -> dict[str, int]:
    databases = json.dumps({"default": database.django})
    return _count(project, {"SHOP_DATABASES": databases, "DJANGO_SETTINGS_MODULE": "shop.settings"})


@pytest.mark.parametrize("release", [1, 2, 3])
def test_a_release_from_nothing_takes_no_more_entries_than_estimated_and_not_many_fewer(
    release: int, tmp_path: Path, pg_database: PostgresDatabase, at_most: float
) -> None:
    before = dump(pg_database.dsn)
    counted = _count_shop(check_out(release, tmp_path), pg_database)
    assert counted["taken"] <= counted["whole"] <= at_most * counted["taken"], counted
    assert counted["greatest"] <= counted["each"] < counted["whole"], counted
    assert dump(pg_database.dsn) == before


@pytest.mark.parametrize("release", [2, 3])
def test_a_release_on_tables_that_exist_takes_no_more_entries_than_estimated_and_not_many_fewer(
    release: int, tmp_path: Path, pg_database: PostgresDatabase, at_most: float
) -> None:
    manage(check_out(release - 1, tmp_path), {"default": pg_database.django}, "migrate", "--verbosity=0")
    counted = _count_shop(check_out(release, tmp_path), pg_database)
    assert counted["taken"] <= counted["whole"], counted
    # How many of its locks find room on the fast path is the server's affair, so all of them are estimated.
    assert counted["whole"] <= at_most * counted["locked"], counted
    assert counted["greatest"] <= counted["each"] <= counted["whole"], counted


def test_what_is_up_to_date_needs_no_entry(tmp_path: Path, pg_database: PostgresDatabase) -> None:
    manage(check_out(1, tmp_path), {"default": pg_database.django}, "migrate", "--verbosity=0")
    counted = _count_shop(tmp_path, pg_database)
    assert (counted["whole"], counted["each"]) == (0, 0)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_a_whole_history_takes_no_more_entries_than_estimated_and_not_many_fewer(
    history: History, pg_database: PostgresDatabase, at_most: float
) -> None:
    databases = json.dumps({"default": pg_database.django})
    counted = _count(history.project, {"SITE_DATABASES": databases, "DJANGO_SETTINGS_MODULE": history.settings})
    assert counted["taken"] <= counted["whole"] <= at_most * counted["taken"], counted
    assert counted["greatest"] <= counted["each"] < counted["whole"], counted
