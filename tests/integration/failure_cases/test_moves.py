"""Calls that fail by themselves: each changes nothing, on any kind of database."""

from pathlib import Path

import pytest

from tests.support.dump import diff
from tests.support.failing_calls import CALLS
from tests.support.failing_move import FailingMove
from tests.support.failing_moves import MOVES
from tests.support.failure_cases import awaited, proof_id
from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases

_REFUSED = 3


def _marks(vendor: Vendor, move: FailingMove) -> list[pytest.MarkDecorator]:
    if move.not_yet and vendor is Vendor.MYSQL:
        return awaited(move.not_yet)
    # Where a transaction holds the operations, they are all undone in one way.
    is_held = vendor is not Vendor.MYSQL and not move.outside
    is_short = move.name in _OF_EACH_CASE and vendor is Vendor.POSTGRESQL if is_held else _turn(move) is vendor
    return [] if is_short else [pytest.mark.long]


def _turn(move: FailingMove) -> Vendor:
    """Return where a move that is undone operation by operation is made in the short run."""
    return Vendor.POSTGRESQL if move.outside and _MOVES.index(move) % 2 else Vendor.MYSQL


_MOVES = [*MOVES, *CALLS]
_OF_EACH_CASE = {move.name for move in {move.cases: move for move in _MOVES}.values()}


@pytest.mark.parametrize(
    ("every_database", "move"),
    [
        pytest.param(vendor, move, id=proof_id(move.cases, move.name, vendor), marks=_marks(vendor, move))
        for move in _MOVES
        for vendor in Vendor
        # What stays there is no proof of these cases (test_apply_migrations_mariadb).
        if not (move.stays and vendor is Vendor.MYSQL)
    ],
    indirect=["every_database"],
)
def test_a_failure_changes_nothing(every_database: NewDatabases, tmp_path: Path, move: FailingMove) -> None:
    database = every_database.new()
    project = move.project(tmp_path, database)
    before = every_database.dump(database)
    refused = move.is_refused(every_database.vendor)

    result = project.run("apply_migrations", *move.arguments)

    assert result.returncode == (_REFUSED if refused else move.returncode), result.stderr
    assert diff(before, every_database.dump(database)) == ""
    printed = result.stdout.splitlines()
    assert refused or [line for line in move.says if line not in printed] == [], result.stdout
