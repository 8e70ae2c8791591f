"""Machines of a fleet whose settings name other databases than the coordinator's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.dump import dump
from tests.support.machines import FleetOfMachines, fleet_of_machines
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM, NOTE

pytestmark = pytest.mark.timeout(180)

_COUNT: Final = 2
_ELSEWHERE: Final = "elsewhere"
_PHYSICAL: Final = (
    "SELECT system_identifier || '/' || oid FROM pg_control_system(), pg_database WHERE datname = current_database()"
)


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server for the databases and the queue."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture
def fleet(server: PostgresServer, tmp_path: Path) -> Iterator[FleetOfMachines]:
    """Two databases that have something to do."""
    with fleet_of_machines(tmp_path, [server], _COUNT, {"demo.0001_item": ITEM, "demo.0002_note": NOTE}) as fleet:
        yield fleet


@pytest.fixture
def elsewhere(server: PostgresServer, fleet: FleetOfMachines) -> Iterator[PostgresDatabase]:
    """A copy of them, beside them."""
    server.create_database(_ELSEWHERE, fleet.many.databases[0].name)
    yield PostgresDatabase(server, _ELSEWHERE)
    server.drop_database(_ELSEWHERE)


def _physical(database: PostgresDatabase) -> object:
    with database.connect() as session:
        return (session.execute(_PHYSICAL).fetchone() or ("",))[0]


def _assert_refuses(fleet: FleetOfMachines, machine: str, here: PostgresDatabase, there: PostgresDatabase) -> None:
    before = fleet.many.dumps(sequences=False)
    for command in ("check", "deploy"):
        outcome = fleet.many.run(command)

        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
        (finding,) = outcome.report["errors"]
        assert finding["message"] == (
            f"the machine {machine} has another database by this name: its server calls that one {_physical(there)}, "
            f"and the one that the coordinator sees {_physical(here)}"
        )
        assert finding["hint"] == (
            "have the settings on each machine name the coordinator's databases, or end that machine"
        )
    assert fleet.many.dumps(sequences=False) == before
    assert fleet.many.prepared() + there.server.prepared(there.name) == []


def test_a_machine_that_has_another_database_is_named_and_changes_nothing(
    fleet: FleetOfMachines, elsewhere: PostgresDatabase
) -> None:
    zero = fleet.many.databases[0]
    machine = fleet.start("--concurrency", "1", instead={zero.name: elsewhere.name})

    _assert_refuses(fleet, machine.name, zero, elsewhere)


def test_so_is_one_where_the_coordinators_database_is_empty(
    fleet: FleetOfMachines, elsewhere: PostgresDatabase
) -> None:
    one = fleet.many.databases[1]
    with one.connect() as session:
        session.execute("DROP SCHEMA public CASCADE")
        session.execute("CREATE SCHEMA public")
    machine = fleet.start("--concurrency", "1", instead={one.name: elsewhere.name})

    _assert_refuses(fleet, machine.name, one, elsewhere)


@pytest.mark.long
def test_so_is_one_that_has_a_database_of_the_same_name_on_another_server(
    server: PostgresServer, pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
    with fleet_of_machines(tmp_path, [server], 1, release, queue_on=pg_server) as fleet:
        (here,) = fleet.many.databases
        there = PostgresDatabase(second_pg_server, here.name)
        second_pg_server.create_database(there.name)
        machine = fleet.start("--concurrency", "1", instead={str(server.port): str(second_pg_server.port)})
        try:
            _assert_refuses(fleet, machine.name, here, there)
        finally:
            second_pg_server.drop_database(there.name)


def test_a_database_that_another_one_has_spoken_for_is_left_alone_by_a_machine_that_has_another(
    fleet: FleetOfMachines, elsewhere: PostgresDatabase
) -> None:
    one = fleet.many.databases[1]
    machine = fleet.start("--concurrency", "1", instead={one.name: elsewhere.name})
    before = [*fleet.many.dumps(sequences=False), dump(elsewhere.dsn, ignore_applied_times=True)]

    outcome = fleet.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    (failed,) = [each for each in outcome.report["databases"] if each["outcome"] == "failed"]
    assert (failed["database"], failed["worker"]) == ("shards:shard_1", machine.name)
    assert failed["error"]["type"] == "OtherDatabase"
    assert failed["error"]["message"] == (
        f"the settings here name another database: its server calls it {_physical(elsewhere)}, and the one that was "
        f"looked at {_physical(one)}"
    )
    assert [*fleet.many.dumps(sequences=False), dump(elsewhere.dsn, ignore_applied_times=True)] == before
    assert fleet.many.prepared() + elsewhere.server.prepared(elsewhere.name) == []
