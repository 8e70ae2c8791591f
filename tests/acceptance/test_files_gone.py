"""What is to be taken back without its migration files: an operator does it by hand, and is not taken at their word."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY, dumps_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_OUTSIDE: Final = NOTE.replace("atomic = True", "atomic = False")
_PAGES: Final = "docs/runbooks"
_COMMAND: Final = "smooth-orchestrate recover deploy.toml"
_RECORD: Final = "DELETE FROM django_migrations WHERE name = '0002_note'"
_COLUMN: Final = "ALTER TABLE demo_item DROP COLUMN note"


@contextmanager
def _fleet(
    directory: Path, machines: tuple[PostgresServer, PostgresServer], release: str = NOTE, **plan: str
) -> Iterator[Fleet]:
    with small_fleet(directory, *machines, {"demo.0002_note": release}) as fleet:
        fleet.plan(**{"deploy": DEPLOY, **plan})
        yield fleet


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    return pg_server, second_pg_server


def _file(fleet: Fleet) -> Path:
    return fleet.directory / "project/demo/migrations/0002_note.py"


def _do(database: PostgresDatabase, *statements: str) -> None:
    with database.connect() as session:
        for statement in statements:
            session.execute(statement.encode())


def test_steps_that_are_taken_back_by_hand_are_forgotten_when_records_and_schema_say_so(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, _OUTSIDE) as fleet:
        before = dumps_of(fleet)
        fleet.kill("deploy", "decide.before")
        _file(fleet).unlink()
        asked = fleet.run("recover")
        assert asked.report["settle_with"] == [_COMMAND, f"{_COMMAND} --accept primary --accept {LAST}"]
        assert asked.report["runbook"] == f"{_PAGES}/exit-4-files-gone.md"
        left = dumps_of(fleet)

        recorded = fleet.run("recover", "--accept", "primary")
        told = {each["database"]: each["error"] for each in recorded.report["databases"] if each["error"]}
        assert (recorded.exit_code, {*told}) == (4, {"primary", LAST})
        assert told["primary"]["message"].endswith("the records still tell of demo.0002_note")
        assert dumps_of(fleet) == left
        _do(fleet.first, _RECORD)
        half = fleet.run("recover", "--accept", "primary")
        told = {each["database"]: each["error"] for each in half.report["databases"] if each["error"]}
        assert (half.exit_code, told["primary"]["type"]) == (4, "SchemaDiffers")
        assert "column note" in told["primary"]["message"]
        assert not [each for each in half.report["errors"] if each["type"] == "needless_accept"]

        _do(fleet.first, _COLUMN)
        one = fleet.run("recover", "--accept", "primary")
        assert one.outcomes == {"primary": "rolled_back", "kiosk": "unchanged", LAST: "in_doubt"}
        _do(fleet.last, _RECORD, _COLUMN)
        settled = fleet.run("recover", "--accept", LAST)

        assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
        assert dumps_of(fleet) == before
        assert fleet.run("recover").report["outcome"] == "nothing_to_do"


def test_who_has_the_files_needs_no_hand(servers: tuple[PostgresServer, PostgresServer], tmp_path: Path) -> None:
    with _fleet(tmp_path, servers, _OUTSIDE) as fleet:
        before = dumps_of(fleet)
        fleet.kill("deploy", "decide.before")

        settled = fleet.run("recover", "--accept", "primary")

        assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
        assert [each["type"] for each in settled.report["errors"]] == ["needless_accept"]
        assert dumps_of(fleet) == before


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_a_committed_phase_that_is_taken_back_by_hand_is_settled(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, change: str
) -> None:
    by_phase = f'{DEPLOY}\ncommit = "phase"'
    with _fleet(tmp_path, servers, deploy=by_phase, servers='atomicity = "two_phase"') as fleet:
        before = dumps_of(fleet)
        fleet.kill("deploy", "journal.phase_started.before:2")
        _file(fleet).unlink() if change == "gone" else _file(fleet).write_text(_OUTSIDE)
        asked = fleet.run("recover")
        accepting = ("--accept", "kiosk", "--accept", "primary")
        assert asked.report["settle_with"] == [_COMMAND, f"{_COMMAND} {' '.join(accepting)}"]
        assert fleet.run("recover", *accepting).exit_code == 4

        _do(fleet.first, _RECORD, _COLUMN)
        with closing(sqlite3.connect(fleet.kiosk)) as kiosk:
            kiosk.executescript(f"{_RECORD}; {_COLUMN}")
        settled = fleet.run("recover", *accepting)

        assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
        assert dumps_of(fleet) == before
        assert fleet.run("recover").report["outcome"] == "nothing_to_do"


def test_a_rollback_that_was_decided_is_finished_by_hand(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, servers='atomicity = "held_open"') as fleet:
        before = dumps_of(fleet)
        assert fleet.deploy().exit_code == 0
        fleet.kill("rollback", "journal.decision.after")
        _file(fleet).unlink()
        new = dumps_of(fleet)
        every = " ".join(f"--accept {name}" for name in ("kiosk", "primary", LAST))
        asked = fleet.run("recover")
        assert asked.report["settle_with"] == [_COMMAND, f"{_COMMAND} {every}"]
        assert asked.report["runbook"] == f"{_PAGES}/exit-4-other-files.md"
        refused = fleet.run("recover", *every.split())
        assert (refused.exit_code, refused.report["outcome"]) == (4, "needs_operator")
        assert "the records still tell of demo.0002_note" in refused.report["error"]["message"]
        assert dumps_of(fleet) == new

        fleet.execute(f"{_RECORD}; {_COLUMN}")
        settled = fleet.run("recover", *every.split())

        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        assert dumps_of(fleet) == before
        assert fleet.run("recover").report["outcome"] == "nothing_to_do"
        again = fleet.run("rollback")
        assert "was taken back by" in again.report["error"]["message"]


def test_a_rollback_of_which_nobody_knows_what_it_takes_back_is_finished_by_hand(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers, servers='atomicity = "held_open"') as fleet:
        before = dumps_of(fleet)
        assert fleet.deploy("--run-id", "d7").exit_code == 0
        fleet.kill("rollback", "journal.decision.after")
        with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
            journal.execute("DROP TRIGGER journal_is_not_deleted_from")
            begun = "SELECT max(seq) FROM journal WHERE kind = 'run_started'"
            told = f"run_id = 'd7' OR (kind IN ('intent', 'held') AND seq > ({begun}))"
            journal.execute(f"DELETE FROM journal WHERE {told}")
        new = dumps_of(fleet)

        asked = fleet.run("recover")

        assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
        assert asked.report["error"]["type"] == "unknown_moves"
        assert asked.report["runbook"] == f"{_PAGES}/exit-4-moves-unknown.md"
        assert dumps_of(fleet) == new
        for alias in ("default", "kiosk", "shard_1"):
            fleet.migrate(alias, "demo", "0001")
        one = fleet.run("recover", "--accept", "primary")
        assert (one.exit_code, one.outcomes["primary"]) == (4, "unchanged")
        assert fleet.run_printed(one).report["outcome"] == "committed"
        assert dumps_of(fleet) == before
        assert fleet.run("recover").report["outcome"] == "nothing_to_do"
