"""Each runbook of a doubt that is rare, or of what ends before one, is followed in its situation on real servers."""

import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import psutil
import psycopg
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.repositories import tag
from tests.support.runbooks import DONE, MEANS, OVER, SEEN, following
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY, decided_by_journal, dumps_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_TWO_PHASE: Final = 'atomicity = "two_phase"'
_SHORT: Final = f'{DEPLOY}\nlock_timeout = "1s"\nlock_retries = 1'
_PATIENCE_S: Final = 20.0


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    return pg_server, second_pg_server


def _new(fleet: Fleet) -> set[str]:
    return {database for database, text in dumps_of(fleet).items() if "0002_note" in text}


@contextmanager
def _report_of_march(fleet: Fleet, mode: str) -> Iterator[None]:
    """Have somebody's session keep a table of `primary`, and do nothing; whoever follows a page may end it."""
    session = psycopg.connect(fleet.first.dsn, application_name="march-report")
    with closing(session):
        session.execute(f"LOCK TABLE demo_item IN {mode} MODE".encode())
        yield


def test_a_lock_that_others_hold_is_given_up_by_them(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=_SHORT, servers=_TWO_PHASE)
        before = dumps_of(fleet)
        with following("exit-1-lock-timeout.md", fleet) as runbook, _report_of_march(fleet, "SHARE"):
            assert runbook.follow(SEEN) == [1, 0]
            assert dumps_of(fleet) == before

            assert {*runbook.follow(DONE)} == {0}

            assert _new(fleet) == {"primary", "kiosk", LAST}
            assert runbook.follow(OVER) == [0, 0]


def test_a_lock_in_the_way_of_a_recovery_is_given_up_by_others(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=f'{_SHORT}\ncommit = "phase"', servers=_TWO_PHASE)
        before = dumps_of(fleet)
        fleet.kill("deploy", "journal.phase_started.before:2")
        with following("exit-1-lock-timeout.md", fleet) as runbook, _report_of_march(fleet, "SHARE"):
            assert runbook.follow("Where a `recover` says it, with exit code 4") == [4, 0, 0, 0]

            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]


@pytest.mark.parametrize("way", ["Where there is a backup", "Where there is none"])
def test_a_damaged_journal_is_restored_or_done_without(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, way: str
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers=_TWO_PHASE)
        before = dumps_of(fleet)
        fleet.kill("deploy", "decide.before")
        shutil.copytree(fleet.directory / ".smooth", fleet.directory / "backup")
        with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
            journal.execute("DROP TRIGGER journal_is_not_updated")
            last = "SELECT max(seq) FROM journal WHERE kind = 'held'"
            journal.execute(f"UPDATE journal SET data = '{{\"steps\": [' WHERE seq = ({last})")
        prepared = fleet.prepared()
        with following("exit-3-journal-damaged.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [3, 0]
            assert fleet.prepared() == prepared != []
            assert runbook.follow(DONE) == [0]

            assert runbook.follow(way) == ([0, 0, 0] if way == "Where there is a backup" else [0, 4, 0])

            assert (dumps_of(fleet), fleet.prepared()) == (before, [])
            assert runbook.follow(OVER) == [0, 0]


def test_what_is_taken_back_by_hand_without_its_files_is_accepted(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    release = {"demo.0002_note": NOTE.replace("atomic = True", "atomic = False")}
    with small_fleet(tmp_path / "plan", *servers, release) as fleet:
        fleet.plan(deploy=DEPLOY)
        before = dumps_of(fleet)
        fleet.kill("deploy", "decide.before")
        (fleet.directory / "project/demo/migrations/0002_note.py").unlink()
        left = dumps_of(fleet)
        with following("exit-4-files-gone.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert runbook.follow(MEANS) == [0]
            assert dumps_of(fleet) == left != before

            assert {*runbook.follow(DONE)} == {0}

            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]


def _interrupt_when_it_settles(fleet: Fleet, log: Path) -> None:
    """End the command that settles something in a fleet's directory, once it says so."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while "recover.started" not in log.read_text() and time.monotonic() < deadline_s:
        threading.Event().wait(0.05)
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = process.info["cmdline"] or []
        if process.info["cwd"] == str(fleet.directory) and "recover" in words:
            process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize("end", ["interrupted", "killed"])
def test_a_settlement_that_was_cut_off_is_repeated(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, end: str
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY.replace('"2s"', '"30s"'), servers=_TWO_PHASE)
        decided_by_journal(fleet)
        fleet.kill("deploy", "journal.decision.after")
        if end == "killed":
            fleet.kill("recover", "commit_prepared.after")
            assert len(fleet.prepared()) < 2
        with following("exit-4-interrupted.md", fleet) as runbook:
            if end == "interrupted":
                servers[0].stop("immediate")
                ending = threading.Thread(target=_interrupt_when_it_settles, args=(fleet, runbook.log))
                ending.start()
                try:
                    assert runbook.follow(SEEN) == [4, 0]
                finally:
                    ending.join()
                    servers[0].start()
            assert runbook.follow(MEANS) == [0]

            assert runbook.follow(DONE) == [0]

            assert (_new(fleet), fleet.prepared()) == ({"primary", "kiosk", LAST}, [])
            assert runbook.follow(OVER) == [0, 0]


def test_a_file_that_is_not_there_is_brought_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers=_TWO_PHASE)
        # The last resource has decided by its commit, and nobody else knows.
        fleet.kill("deploy", "journal.decision.before")
        volume = fleet.directory / "volume"
        volume.mkdir()
        for file in fleet.directory.glob("kiosk.sqlite3*"):
            file.rename(volume / file.name)
        prepared = fleet.prepared()
        with following("exit-4-missing-database.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert (fleet.prepared(), fleet.kiosk.exists()) == (prepared, False)

            assert {*runbook.follow(DONE)} == {0}

            assert (_new(fleet), fleet.prepared()) == ({"primary", "kiosk", LAST}, [])
            assert runbook.follow(OVER) == [0, 0]


@pytest.mark.parametrize("way", ["Where you have the plan as it was", "Where it is gone"])
def test_a_database_that_shows_nothing_is_known_by_the_plan_or_accepted(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, way: str
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers=_TWO_PHASE)
        fleet.migrate("kiosk")
        tag(fleet.directory, "v1")
        fleet.kill("deploy", "journal.decision.after")
        # Killed a moment later, it would have left this.
        (gid,) = [gid for gid in fleet.prepared() if ":primary:" in gid]
        with fleet.first.connect() as session:
            session.execute(f"COMMIT PREPARED '{gid}'".encode())
        shutil.rmtree(fleet.directory / ".smooth")
        fleet.plan(deploy=f"{DEPLOY}\nlock_retries = 3", servers=_TWO_PHASE)
        with following("exit-4-no-trace.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert (_new(fleet), fleet.prepared()) == ({"primary", "kiosk", LAST}, [])

            assert {*runbook.follow(way)} == {0}

            assert runbook.follow(OVER) == [0, 0]
        assert _new(fleet) == {"primary", "kiosk", LAST}


def test_what_cannot_be_looked_at_is_looked_at_again(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=f'{_SHORT}\ncommit = "phase"', servers=_TWO_PHASE)
        before = dumps_of(fleet)
        fleet.kill("deploy", "journal.phase_started.before:2")
        with following("exit-4-unseen.md", fleet) as runbook, _report_of_march(fleet, "ACCESS EXCLUSIVE"):
            assert runbook.follow(SEEN) == [4, 0]

            assert {*runbook.follow(DONE)} == {0}

            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]
