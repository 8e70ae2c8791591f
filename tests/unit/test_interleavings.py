"""Deploys of a pure model, each struck in its own way, with their steps in every order: settled by the product's rules.

A failure prints the script, shrunk; `play` of tests/support/scripts.py plays it again.
"""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smooth_orchestrator.config import Tier
from smooth_orchestrator.events import Decision
from tests.support.scripts import Cut, Script, play

# The one is shrunk, the other reaches further.
_CHANCE = st.randoms(use_true_random=False) | st.builds(random.Random, st.integers(0, 2**32))
_UNHURRIED = settings(deadline=None, database=None, suppress_health_check=[*HealthCheck])


@settings(_UNHURRIED, max_examples=300)
@given(_CHANCE)
def test_all_databases_are_new_or_all_are_old_whatever_befalls_a_deploy(chance: random.Random) -> None:
    play(Script.drawn(chance))


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_databases_are_new_or_all_are_old_in_ten_thousand_interleavings() -> None:
    played: set[Script] = set()

    # Some are drawn twice.
    @settings(_UNHURRIED, max_examples=24_000)
    @given(_CHANCE)
    def settle(chance: random.Random) -> None:
        script = Script.drawn(chance)
        play(script)
        played.add(script)

    settle()
    assert len(played) >= 10_000


def test_the_scripts_are_of_every_kind() -> None:
    scripts = [Script.drawn(random.Random(seed)) for seed in range(500)]
    outcomes = [play(script) for script in scripts]
    assert {tier for script in scripts for tier in script.tiers} == {None, *Tier}
    assert {played.is_new for played in outcomes} == {True, False, None}
    assert any(played.asked for played in outcomes)
    assert any(script.frozen_at is not None for script in scripts)
    assert {script.rival[1] for script in scripts if script.rival} == {True, False}
    assert {script.cut.is_executed for script in scripts if script.cut} == {True, False}
    assert {len(script.kills) for script in scripts} == {1, 2, 3}


def test_what_is_printed_of_a_script_makes_it_again() -> None:
    names = {each.__name__: each for each in (Script, Cut, Tier, Decision)}
    for seed in range(50):
        script = Script.drawn(random.Random(seed))
        assert eval(repr(script), names) == script  # noqa: S307 - our own
