"""Strong locks are those that the statements need, and all of them are taken together, before the first statement."""

import json
from pathlib import Path

import pytest

from tests.support.new_databases import NewDatabases
from tests.support.skew.cases import CASES
from tests.support.skew.releases import Releases

pytestmark = pytest.mark.timeout(120)

_LOOK = Path(__file__).parents[1] / "support/skew/strong_locks.py"
_SHORT = ("add a foreign key", "rename a model that has many to many", "several at once")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in _SHORT else pytest.mark.long) for case in CASES]
)
def test_what_a_plan_locks_is_locked_together_and_nothing_else(
    pg_databases: NewDatabases, tmp_path: Path, case: str
) -> None:
    releases = Releases(tmp_path, CASES[case], pg_databases.new())
    releases.old.succeed("migrate", "--verbosity=0")
    releases.new.write("look.py", _LOOK.read_text())

    looked = releases.new.succeed("shell", "--verbosity", "0", "--command", "import look")

    for command, (locked, late, needed) in json.loads(looked.splitlines()[-1]).items():
        assert not late, command
        assert locked == needed, command
