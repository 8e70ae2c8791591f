import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.bad_plans import CASES, BadPlan, make

SCRIPT = Path(sys.executable).with_name("smooth-orchestrate")
WITHOUT_DJANGO = [case for case in CASES if not case.needs_django]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *words], capture_output=True, text=True, check=False, timeout=60)


def expected(case: BadPlan, path: Path) -> list[str]:
    return [line.replace("{plan}", str(path)) for line in case.expected]


@pytest.mark.parametrize("case", WITHOUT_DJANGO, ids=lambda case: case.id)
def test_the_command_names_every_mistake_of_a_bad_plan_with_its_place(case: BadPlan, tmp_path: Path) -> None:
    path = make(case, tmp_path)
    done = run(path, "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_code"], report["outcome"]) == (2, 2, "invalid")
    assert [f"{error['place']}: {error['message']}" for error in report["errors"]] == expected(case, path)
    assert all(error.keys() == {"place", "message", "hint"} for error in report["errors"])
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["deploy", "plan", "check", "status", "runs", "report"])
def test_every_command_says_in_words_what_is_wrong_with_a_plan(command: str, tmp_path: Path) -> None:
    case = max(WITHOUT_DJANGO, key=lambda case: len(case.expected))
    path = make(case, tmp_path)
    done = run(command, path)
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    shown = [f"{place}: {message.strip()}" for place, message in pairwise(lines)]
    assert [line for line in expected(case, path) if line not in shown] == []
