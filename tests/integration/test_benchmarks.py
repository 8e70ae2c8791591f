"""The benchmarks on real servers, as small as they can be: that each comes to a figure, whatever it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.backfill import BackfillBesideWriters, BackfillOfMoreRows, BackfillOfRows
from benchmarks.fleets import Limit
from benchmarks.measuring import Benchmark, Run
from benchmarks.scaling import OverQueue, Scaling, WaitingFleet
from benchmarks.site import Site, State
from benchmarks.stall import Stall
from benchmarks.tenants import Tenants
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import THROW_AWAY, PostgresServer

pytestmark = [pytest.mark.timeout(300), pytest.mark.long]

_ROWS = 2000


def _runs(benchmark: Benchmark) -> tuple[Run, Run]:
    benchmark.prepare()
    ours = benchmark.run_ours()
    benchmark.prepare()
    return ours, benchmark.run_peer()


@pytest.mark.parametrize("trigger", [False, True], ids=["plain", "trigger"])
def test_both_sides_fill_all_rows(pg_server: PostgresServer, tmp_path: Path, *, trigger: bool) -> None:
    benchmark = BackfillOfRows(pg_server, tmp_path, _ROWS, trigger=trigger)

    ours, peer = _runs(benchmark)

    assert ours.duration_s > 0 < peer.duration_s


def test_the_time_of_a_million_rows_is_told_by_tables_of_two_sizes(pg_server: PostgresServer, tmp_path: Path) -> None:
    small, large = (BackfillOfRows(pg_server, tmp_path, rows) for rows in (500, 5000))

    ours, peer = _runs(BackfillOfMoreRows(small, large))

    assert ours.duration_s > 0 < peer.duration_s


def test_writers_are_served_beside_either_side(pg_server: PostgresServer, tmp_path: Path) -> None:
    for run in _runs(BackfillBesideWriters(pg_server, tmp_path, _ROWS)):
        assert 0 < run.duration_s <= run.beside["longest"]


@pytest.mark.parametrize(("reader_s", "rows"), [(1.0, None), pytest.param(0.0, _ROWS, marks=pytest.mark.long)])
def test_both_sides_end_with_the_same_migrations_while_clients_are_served(
    pg_server: PostgresServer, tmp_path: Path, reader_s: float, rows: int | None
) -> None:
    benchmark = Stall(pg_server, tmp_path, reader_s, rows)

    ours, peer = _runs(benchmark)

    assert ours.left == peer.left
    assert {"demo.0001_first", "demo.0002_next"} <= ours.left["default"]
    assert 0 < ours.beside["finalise"] <= ours.duration_s
    assert peer.beside["finalise"] == peer.duration_s


@pytest.fixture
def site_server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server that no other site has its templates on."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


def test_a_deploy_and_psql_alone_leave_the_same_migrations_and_the_same_schema(
    site_server: PostgresServer, tmp_path: Path
) -> None:
    benchmark = Limit(Site("helpdesk", tmp_path), _two(site_server), tmp_path)

    ours, peer = _runs(benchmark)

    assert benchmark.name == "limit/2-databases/five-pending"
    assert ours.left == peer.left
    assert ours.duration_s > 0 < peer.duration_s


@pytest.mark.parametrize("state", [State.NOTHING_PENDING, State.FIVE_PENDING])
def test_a_deploy_over_databases_and_django_tenants_over_schemas_end_alike(
    site_server: PostgresServer, tmp_path: Path, state: State
) -> None:
    benchmark = Tenants(Site("helpdesk", tmp_path), _two(site_server), state, tmp_path)

    ours, peer = _runs(benchmark)

    assert benchmark.name == f"tenants/2-databases/{state}"
    assert ours.left == peer.left
    assert "helpdesk.0001_initial" in ours.left["default"]
    assert ours.duration_s > 0 < peer.duration_s


def _two(server: PostgresServer) -> dict[str, PostgresDatabase]:
    return {alias: PostgresDatabase(server, f"fleet_{alias}") for alias in ("default", "other")}


def test_a_migration_that_waits_does_so_on_each_database_over_the_queue_and_without_it(
    site_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    fleet = WaitingFleet(site_server, second_pg_server, tmp_path, 3)

    # Each deploy fails unless every database has waited.
    for benchmark in (Scaling(fleet, 2), OverQueue(fleet)):
        ours, peer = _runs(benchmark)

        assert ours.duration_s > 0 < peer.duration_s
        assert 0 < ours.beside["coordinator"] < ours.beside["processor"]
