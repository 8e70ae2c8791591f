"""Which tests are run over a fleet."""

import re
from pathlib import Path

from tests.support.fleet_cases import LEFT_OUT, MATRIX, chosen, why_left_out

_ACCEPTANCE = Path(__file__).parents[1] / "acceptance"
_MATRIX = [f"tests/acceptance/test_recovery.py::test_that[prepared-point{number}]" for number in range(150)]
_OTHERS = ["tests/acceptance/test_deploy.py::test_that", "tests/acceptance/test_recovery.py::test_that[held-point]"]


def test_of_the_crash_matrix_a_hundred_are_run_and_of_others_all() -> None:
    first, again, other = (chosen([*_MATRIX, *_OTHERS], seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(first & {*_MATRIX}) == 100
    assert first >= {*_OTHERS}


def test_what_is_left_out_by_name_is_there() -> None:
    named = {pattern for patterns in LEFT_OUT.values() for pattern in patterns if "::" in pattern}
    assert named
    for pattern in named:
        file, _, name = pattern.partition("::")
        assert re.search(rf"^def {name}", (_ACCEPTANCE / file).read_text(), re.MULTILINE), pattern
    assert all((_ACCEPTANCE / f"{name}.py").exists() for name in MATRIX)


def test_what_is_left_out_by_its_case_is_told_why() -> None:
    of_tiers = ["test_recovery.py::test_that[held-begin.after]", "test_lost_replies.py::test_that[held_open-LOST]"]
    of_tiers += ["test_finalise_kills.py::test_that[deploy-held-begin.after]", "test_rollback.py::test_that[held_open]"]
    assert {why_left_out(each) for each in of_tiers} == {next(iter(LEFT_OUT))}
    assert "last resource" in str(why_left_out("test_recovery.py::test_that[prepared-decide.after]"))
    assert why_left_out("test_recovery.py::test_that[phases-journal.held.after]") is None
    assert why_left_out("test_recovery.py::test_that[prepared-commit_prepared.after]") is None
