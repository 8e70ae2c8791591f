"""The program on a simulated clock: a fleet that nobody has, in seconds."""

from dataclasses import replace
from typing import Final

import pytest

from benchmarks.simulate_fleet import MEASURED
from benchmarks.simulated.fleet import Scenario, simulate
from smooth_orchestrator.report import RunOutcome

_SMALL: Final = Scenario(databases=40, workers=16, on_each_machine=2, each_server=20, wait_s=3.0)


@pytest.mark.timeout(600)
def test_a_thousand_databases_are_committed_phase_by_phase() -> None:
    simulated = simulate(Scenario(databases=1000, workers=20, each_server=250, phase=250), MEASURED)

    assert simulated.report.outcome is RunOutcome.COMMITTED
    assert simulated.usage.committed == 1000
    assert simulated.usage.prepared == set()
    # Never more than one phase waits for its decision.
    assert 200 < simulated.usage.most_prepared <= 250
    assert 0 < simulated.busy["coordinator"] <= 1


def test_the_same_comes_of_the_same_scenario_and_less_of_more_workers() -> None:
    first, second, more = (simulate(replace(_SMALL, workers=each), MEASURED) for each in (8, 8, 16))

    # The report that the journal keeps says when it was.
    usages = [replace(each.usage, row_bytes=0) for each in (first, second)]
    assert (first.duration_s, first.busy, usages[0]) == (second.duration_s, second.busy, usages[1])
    assert more.duration_s < first.duration_s


def test_a_slow_server_is_waited_for() -> None:
    assert simulate(replace(_SMALL, slow_servers=(1, 4.0)), MEASURED).duration_s > 12


def test_what_a_lost_machine_had_begun_is_begun_anew_by_another() -> None:
    lost = simulate(replace(_SMALL, lost_every_s=7.0), MEASURED)

    assert lost.usage.lost > 0
    assert (lost.report.outcome, lost.usage.committed) == (RunOutcome.COMMITTED, 40)
    # A machine is silent for a while before others take its place.
    assert lost.duration_s > 7 + 15
