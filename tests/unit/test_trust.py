"""A plan that somebody else may have written is told of before anything else."""

import os
from pathlib import Path

import pytest

from smooth_orchestrator.cli import main
from smooth_orchestrator.trust import doubts

_NOBODY = 65534


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "deploy.toml"
    path.write_text("version = 1\n")
    return path


def test_a_plan_of_ones_own_is_not_doubted(plan: Path) -> None:
    assert list(doubts(plan)) == []
    assert list(doubts(plan.with_name("gone"))) == []
    assert list(doubts(Path("/dev/null"))) == []


def test_a_plan_that_all_may_write_is_told_of(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan.chmod(0o666)

    assert main(["check", str(plan), "--log-format", "json"]) == 2

    first, *_rest = capsys.readouterr().err.splitlines()
    assert f"the plan {plan} can be written by every user of this machine; chmod o-w takes that away" in first
    assert '"level": "warning"' in first


def test_a_plan_in_a_place_of_all_is_told_of_unless_nobody_may_replace_it(plan: Path) -> None:
    plan.parent.chmod(0o777)
    assert list(doubts(plan)) == [
        f"every user of this machine can put another file in the place of the plan {plan}: see its directory"
    ]
    plan.parent.chmod(0o1777)
    assert list(doubts(plan)) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_plan_of_somebody_else_is_told_of(plan: Path) -> None:
    os.chown(plan, _NOBODY, -1)
    assert list(doubts(plan)) == [f"the plan {plan} belongs to another user (nobody), who says by it what is run"]
    os.chown(plan, _NOBODY - 1, -1)
    assert list(doubts(plan)) == [
        f"the plan {plan} belongs to another user ({_NOBODY - 1}), who says by it what is run"
    ]
