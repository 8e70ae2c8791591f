"""Records of a journal that say nothing any more: every command names the one, and nothing is decided by the others."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deploys import Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE

pytestmark = pytest.mark.timeout(180)

_MOVING = ("recover", "deploy", "rollback", "finalise")
_DAMAGES = {
    "no JSON": ("data", '{"decision": "com', "Unterminated string"),
    "no object": ("data", "[]", "it is of the type list, and not dict"),
    "a wrong type": ("data", '{"decision": 7, "scope": "deploy"}', "'decision' is of the type int, and not str"),
    "an unknown value": ("data", '{"decision": "maybe", "scope": "deploy"}', "'maybe' is not a valid Decision"),
    "a part": ("data", '{"scope": "deploy"}', "'decision' is missing"),
    "an unknown kind": ("kind", "unheard", "this program knows no records of the kind 'unheard'"),
    "no time": ("at", "yesterday", "Invalid isoformat string"),
}


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """A deploy that was cut off after its decision, in databases that it has not changed."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy='expand_contract = false\natomicity = "held_open"')
        assert fleet.run("deploy", failpoint="journal.decision.after").exit_code == -9
        for process in fleet.processes():
            process.wait(timeout=20)
        fleet.wait_until_alone()
        yield fleet


def _damage(fleet: Fleet, kind: str, column: str, value: str) -> tuple[int, str]:
    """Change the last record of a kind; return its number, and what stood there."""
    with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
        journal.execute("DROP TRIGGER IF EXISTS journal_is_not_updated")
        query = f"SELECT seq, {column} FROM journal WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        seq, before = journal.execute(query, [kind]).fetchone()
        journal.execute(f"UPDATE journal SET {column} = ? WHERE seq = ?", [value, seq])
        return seq, before


def _assert_told(fleet: Fleet, command: str, seq: int, words: str) -> None:
    refused = fleet.run(command)
    error = refused.report["error"]
    assert (refused.exit_code, refused.report["outcome"], error["type"]) == (3, "refused", "journal_damaged"), command
    place = fleet.directory / ".smooth/journal.db"
    assert error["message"].startswith(f"{place}: record {seq} is damaged: {words}")
    assert "move it away, and `smooth-orchestrate recover PLAN`" in error["hint"]
    assert refused.report["errors"] == []


@pytest.mark.long
def test_every_command_that_reads_a_damaged_record_names_it_and_changes_nothing(fleet: Fleet) -> None:
    before = fleet.dumps()
    seq, written = _damage(fleet, "run_started", "data", '{"deploy": "small", "comm')
    for command in (*_MOVING, "status", "runs", "report", "rehearse"):
        _assert_told(fleet, command, seq, "Unterminated string")
    _damage(fleet, "run_started", "data", written)
    seq, finished = _damage(fleet, "run_finished", "data", '{"outcome": "committed", "report": {"error": "none"}}')
    for command in ("status", "runs", "report"):
        _assert_told(fleet, command, seq, "'error' is of the type str, and not dict")
    _damage(fleet, "run_finished", "data", '{"outcome": "committed", "report": {"error": null}}')
    _assert_told(fleet, "report", seq, "'command' is missing")
    assert fleet.dumps() == before

    _damage(fleet, "run_finished", "data", finished)
    assert fleet.run("recover").report["outcome"] == "committed"


@pytest.mark.long
def test_a_damaged_decision_is_obeyed_by_nobody(fleet: Fleet) -> None:
    before = fleet.dumps()
    for command, (kind, (column, value, words)) in zip((*_MOVING, *_MOVING), _DAMAGES.items(), strict=False):
        seq, written = _damage(fleet, "decision", column, value)
        _assert_told(fleet, command, seq, words)
        assert fleet.dumps() == before, kind
        _damage(fleet, "decision" if column != "kind" else value, column, written)

    assert fleet.run("recover").report["outcome"] == "committed"


@pytest.mark.long
def test_a_journal_that_was_moved_away_as_the_hint_says_is_done_without(fleet: Fleet) -> None:
    before = fleet.dumps()
    _damage(fleet, "decision", "data", "")
    assert fleet.run("recover").exit_code == 3
    (fleet.directory / ".smooth").rename(fleet.directory / "damaged")

    # Nothing was prepared, and no database shows anything of the run.
    assert fleet.run("recover").report["outcome"] == "nothing_to_do"
    assert fleet.dumps() == before
    assert fleet.deploy().report["outcome"] == "committed"
