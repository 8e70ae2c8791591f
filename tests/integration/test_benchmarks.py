"""The benchmarks on real servers, as small as they can be: that each comes to a figure, whatever it is."""

from pathlib import Path

import pytest

from benchmarks.backfill import BackfillBesideWriters, BackfillOfMoreRows, BackfillOfRows
from benchmarks.measuring import Benchmark, Run
from benchmarks.stall import Stall
from tests.support.postgres_server import PostgresServer

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
