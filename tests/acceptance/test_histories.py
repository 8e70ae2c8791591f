"""Histories that nobody here wrote, deployed over three PostgreSQL databases on two servers and a SQLite file.

What stock `migrate` makes of an empty database and of an older release is the measure of success; what was there before
is the measure of a failure.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.histories import HISTORIES, History, Plant, execute, vendor_of
from tests.support.history_fleet import Deployed, Fleet, fleet
from tests.support.postgres_server import PostgresServer
from tests.support.stock_results import StockResults

# On a busy machine the whole of a history may take minutes.
pytestmark = pytest.mark.timeout(600)

Stock = Callable[[History], StockResults]
Servers = tuple[PostgresServer, PostgresServer]

# The short run takes the shortest history; the others take minutes each.
_MARKS = {name: [] if name == "helpdesk" else [pytest.mark.long] for name in HISTORIES}
EACH = [pytest.param(history, id=name, marks=_MARKS[name]) for name, history in HISTORIES.items()]
# The one before these makes a foreign key refer to other rows, which two releases cannot both read.
_THIRTY_BACK = replace(
    HISTORIES["wagtail"], newest={**HISTORIES["wagtail"].newest, "wagtailsearchpromotions": 1}, cut="_in_halves"
)
EACH_AND_LAST = [
    pytest.param(history, last, id=f"{name}-{last}", marks=_MARKS[name] if last == "third" else [pytest.mark.long])
    for name, history in HISTORIES.items()
    for last in ("third", "local")
]


@pytest.fixture(scope="session")
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> Servers:
    return pg_server, second_pg_server


@pytest.fixture(scope="session")
def stock(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Stock:
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent  # one for all workers of this run
    histories = [*HISTORIES.values(), _THIRTY_BACK]
    made = {history.label: StockResults(history, servers, directory) for history in histories}
    return lambda history: made[history.label]


@pytest.mark.long
@pytest.mark.parametrize("history", EACH)
def test_a_whole_history_from_nothing_ends_as_stock_migrate_ends(
    history: History, stock: Stock, servers: Servers, tmp_path: Path
) -> None:
    with fleet(history, servers, tmp_path) as empty:
        deployed = empty.deploy("from-nothing")

        _assert_committed(deployed, empty)
        newest = stock(history).newest
        # wagtail.search defines a model of its own where the vendor of `default` is SQLite, which it is in stock's
        # reference for SQLite and is not in this fleet: one content type more, and every later id another.
        compared = {name: at for name, at in empty.databases.items() if (history.name, name) != ("wagtail", "local")}
        made = empty.dumps()
        _assert_same(
            {name: made[name] for name in compared}, {name: newest[vendor_of(at)] for name, at in compared.items()}
        )


@pytest.mark.long
@pytest.mark.parametrize("history", EACH)
def test_an_older_release_is_brought_to_where_stock_migrate_brings_it(
    history: History, stock: Stock, servers: Servers, tmp_path: Path
) -> None:
    with fleet(history, servers, tmp_path, stock(history).older) as older:
        deployed = older.deploy("update")

        _assert_committed(deployed, older)
        updated = stock(history).updated
        _assert_same(older.dumps(), {name: updated[vendor_of(at)] for name, at in older.databases.items()})


@pytest.mark.long
@pytest.mark.parametrize("history", [_THIRTY_BACK, HISTORIES["helpdesk"]], ids=attrgetter("name"))
def test_an_older_release_is_brought_there_in_halves(
    history: History, stock: Stock, servers: Servers, tmp_path: Path
) -> None:
    with fleet(history, servers, tmp_path, stock(history).older) as older:
        in_halves = replace(older, expands=True)

        deployed = in_halves.deploy("expand")

        _assert_committed(deployed, older)
        finalised = in_halves.run("finalise", "contract")
        assert finalised.exit_code == 0, [entry["error"] for entry in finalised.report["databases"]]
        updated = stock(history).updated
        _assert_same(older.dumps(), {name: updated[vendor_of(at)] for name, at in older.databases.items()})


@pytest.mark.long
@pytest.mark.parametrize(("history", "last"), EACH_AND_LAST)
def test_a_failure_in_the_last_phase_leaves_every_database_at_the_older_release(
    history: History, last: str, stock: Stock, servers: Servers, tmp_path: Path
) -> None:
    with fleet(history, servers, tmp_path, stock(history).older) as older:
        plant = history.plants[vendor_of(older.databases[last])]

        _assert_failure_changes_nothing(older, last, plant)


@pytest.mark.long
@pytest.mark.parametrize("history", EACH)
def test_a_failure_at_the_end_of_a_whole_history_leaves_every_database_empty(
    history: History, servers: Servers, tmp_path: Path
) -> None:
    with fleet(history, servers, tmp_path) as empty:
        execute(empty.databases["local"], "PRAGMA user_version = 0")  # a file, for the dump before

        _assert_failure_changes_nothing(empty, "third", history.plant_in_empty)


@pytest.mark.parametrize("history", EACH)
@pytest.mark.long
@pytest.mark.parametrize("begins", ["from nothing", "from the older release"])
def test_a_rehearsal_leaves_every_database_as_it_was(
    history: History, begins: str, stock: Stock, servers: Servers, tmp_path: Path
) -> None:
    older = stock(history).older if begins == "from the older release" else None
    with fleet(history, servers, tmp_path, older) as databases:
        execute(databases.databases["local"], "PRAGMA user_version = 0")  # a file, for the dump before
        before = databases.dumps_without_sequences()

        rehearsed = databases.run("rehearse", "dress")

        assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (0, "nothing_to_do"), rehearsed.report
        # Indexes that are built CONCURRENTLY, in an old part of two histories, cannot be.
        assert all(entry["unapplied"] for entry in rehearsed.databases.values())
        assert all(entry["rehearsed"] or "cannot run in" in entry["reason"] for entry in rehearsed.databases.values())
        assert databases.left_behind() == []
        _assert_same(databases.dumps_without_sequences(), before)


def _assert_failure_changes_nothing(databases: Fleet, last: str, plant: Plant) -> None:
    execute(databases.databases[last], plant.sql)
    before = databases.dumps_without_sequences()
    app, migration = plant.migration.split(".")
    sqlstate = plant.sqlstate if last == "third" else None

    deployed = databases.deploy("fails")

    assert (deployed.exit_code, deployed.report["outcome"]) == (1, "rolled_back"), deployed.report["error"]
    reported = deployed.databases[last]
    assert (reported["outcome"], reported["error"]["migration"]) == ("failed", plant.migration)
    assert reported["error"]["sqlstate"] == sqlstate
    assert {at["outcome"] for name, at in deployed.databases.items() if name != last} <= {"rolled_back", "unchanged"}
    assert [(event["database"], event["app"], event["migration"]) for event in deployed.events("migration.failed")] == [
        (last, app, migration)
    ]
    assert databases.left_behind() == []
    _assert_same(databases.dumps_without_sequences(), before)


def _assert_committed(deployed: Deployed, databases: Fleet) -> None:
    assert (deployed.exit_code, deployed.report["outcome"]) == (0, "committed"), deployed.report
    assert {name: at["outcome"] for name, at in deployed.databases.items()} == dict.fromkeys(
        databases.databases, "committed"
    )
    assert databases.left_behind() == []


def _assert_same(found: dict[str, str], expected: dict[str, str]) -> None:
    # A comparison of two texts of thousands of lines would drown what differs.
    assert {name: diff(expected[name], found[name])[:2000] for name in expected if found[name] != expected[name]} == {}
