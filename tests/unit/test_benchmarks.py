import io
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.chart import lines
from benchmarks.measuring import Measurement, Run, measure, timed
from benchmarks.processes import watched
from benchmarks.results import document, growth, table

LEFT = {"default": frozenset({"shop.0001_initial"})}
MEASURED = Measurement("apply/sqlite/from-zero", (1.0, 9.0, 2.0), (2.0, 3.0, 2.0), memory_mb=95.5)


class Scripted:
    """A benchmark whose runs take what they are told to."""

    name = "scripted"

    def __init__(self, ours: Iterable[Run], peer: Iterable[Run]) -> None:
        self.ours = iter(ours)
        self.peer = iter(peer)
        self.calls: list[str] = []

    def prepare(self) -> None:
        """Note the call."""
        self.calls.append("prepare")

    def run_ours(self) -> Run:
        """Note the call."""
        self.calls.append("ours")
        return next(self.ours)

    def run_peer(self) -> Run:
        """Note the call."""
        self.calls.append("peer")
        return next(self.peer)


def runs(*durations_s: float) -> list[Run]:
    return [Run(duration_s, LEFT) for duration_s in durations_s]


def test_the_first_pair_is_not_counted_and_the_others_keep_their_order() -> None:
    measured = measure(Scripted(runs(100, 1, 2), runs(200, 4, 8)), repeat=2)

    assert measured == Measurement("scripted", (1, 2), (4, 8))


def test_the_other_times_that_runs_tell_of_are_measurements_of_their_own() -> None:
    ours, peer = ([Run(1, LEFT, {"locks": locked_s}) for locked_s in each] for each in ((9, 1, 2), (9, 4, 8)))

    measured = measure(Scripted(ours, peer), repeat=2)

    assert measured.beside == (Measurement("scripted/locks", (1, 2), (4, 8)),)


def test_the_sides_take_turns_in_going_first_and_each_begins_from_prepared_databases() -> None:
    benchmark = Scripted(runs(1, 1, 1), runs(1, 1, 1))

    measure(benchmark, repeat=2)

    assert benchmark.calls[::2] == ["prepare"] * 6
    assert benchmark.calls[1::2] == ["ours", "peer", "peer", "ours", "ours", "peer"]


def test_a_side_that_leaves_other_migrations_is_an_error_and_no_figure() -> None:
    benchmark = Scripted(runs(1), [Run(1, {"default": frozenset()})])

    with pytest.raises(
        RuntimeError, match=r"^scripted: peer left other migrations than the runs before it, in default$"
    ):
        measure(benchmark, repeat=1)


def test_the_ratio_is_the_median_of_the_pairs_and_not_of_the_sides() -> None:
    assert MEASURED.ratios == (0.5, 3.0, 1.0)
    assert MEASURED.ratio == 1.0


def test_the_table_shows_medians_the_ratio_and_its_spread() -> None:
    console = Console(file=io.StringIO(), width=100)

    console.print(table([MEASURED]))

    assert isinstance(console.file, io.StringIO)
    row = next(line for line in console.file.getvalue().splitlines() if "from-zero" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == [
        "apply/sqlite/from-zero",
        "2.00 s",
        "2.00 s",
        "1.00",
        "0.50-3.00",
        "96 MiB",
    ]


def test_the_document_holds_every_single_time() -> None:
    written = document([MEASURED], application="helpdesk", started_at="2026-01-31T12:00:00+00:00")

    assert (written["application"], written["started_at"]) == ("helpdesk", "2026-01-31T12:00:00+00:00")
    assert written["benchmarks"] == [
        {
            "name": "apply/sqlite/from-zero",
            "ours_s": [1.0, 9.0, 2.0],
            "peer_s": [2.0, 3.0, 2.0],
            "ratio": 1.0,
            "ratio_lowest": 0.5,
            "ratio_highest": 3.0,
            "memory_mb": 95.5,
        }
    ]


def test_a_command_that_fails_is_an_error_with_what_it_printed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)^exit code 3 of .*:\nno such table\n$"):
        timed([sys.executable, "-c", "print('no such table'); raise SystemExit(3)"], cwd=tmp_path, env={})


def test_growth_is_the_power_of_the_number_of_databases() -> None:
    measured = [
        Measurement(f"deploy/{count}-databases/five-pending", (seconds,), (1.0,))
        for count, seconds in ((1, 3.0), (10, 30.0), (100, 300.0))
    ]
    alone = Measurement("deploy/8-databases/from-zero", (1.0,), (1.0,))

    assert growth([*measured, alone]) == {"five-pending": pytest.approx(1.0)}


def test_a_chart_has_a_line_for_each_side_by_the_number_of_databases() -> None:
    measured = [
        Measurement("deploy/8-databases/five-pending", (4.0, 5.0, 6.0), (9.0, 9.0, 9.0)),
        Measurement("deploy/1-databases/five-pending", (3.0,), (3.5,)),
        Measurement("apply/sqlite/five-pending", (1.0,), (1.0,)),
    ]
    written = document(measured, application="wagtail", started_at="2026-01-01T00:00:00+00:00")

    assert lines(written) == {"five-pending": {"ours": [(1, 3.0), (8, 5.0)], "peer": [(1, 3.5), (8, 9.0)]}}


def test_a_program_is_watched_with_all_that_it_starts(tmp_path: Path) -> None:
    child = (
        "import time; held = bytearray(64 * 1024 * 1024)\n"
        # At work for several looks.
        "while time.process_time() < 0.5: pass\n"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True); print('done')"

    seen = watched([sys.executable, "-c", parent], cwd=tmp_path, env={})

    assert seen.stdout == "done\n"
    assert seen.peak_mb > 64
    with pytest.raises(RuntimeError, match=r"exit code 3 of (.|\n)*said so"):
        watched([sys.executable, "-c", "import sys; print('said so'); sys.exit(3)"], cwd=tmp_path, env={})
