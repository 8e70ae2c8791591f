"""Journals that have lost their last records, or all of them: what was settled stays one and the same everywhere."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.fault_proxy import Fault, Harm
from tests.support.leases import until
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family
from tests.support.small_migrations import KIND, NOTE
from tests.support.tiers import decided_by_journal, proxied

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"'
_BY_PHASE = f'{_DEPLOY}\ncommit = "phase"'
_BEGUN = "SELECT max(seq) FROM journal WHERE kind = 'run_started'"


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    return pg_server, second_pg_server


@contextmanager
def _fleet(
    directory: Path, servers: tuple[PostgresServer, PostgresServer], *, deploy: str = _DEPLOY
) -> Iterator[Fleet]:
    with small_fleet(directory, *servers, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        fleet.plan(deploy=deploy, servers='atomicity = "two_phase"')
        yield fleet


def _of(fleet: Fleet) -> dict[str, str]:
    return fleet.dumps(sequences=False, applied=False)


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in _of(fleet).items() if "0003_kind" in text}


def _wait(fleet: Fleet) -> None:
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


def _kill(fleet: Fleet, point: str, command: str = "deploy", *options: str) -> None:
    killed = fleet.run(command, *options, failpoint=point)
    assert killed.exit_code == -9, f"{point} was not reached: {killed.stderr}"
    _wait(fleet)


def _cut(fleet: Fleet, first: str) -> None:
    """Have the journal lose its records from one on, which a query gives."""
    with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
        journal.execute("DROP TRIGGER journal_is_not_deleted_from")
        assert journal.execute(f"DELETE FROM journal WHERE seq >= ({first})").rowcount


@pytest.mark.parametrize("choice", ["--commit", pytest.param("--abort", marks=pytest.mark.long)])
def test_a_phase_of_which_nobody_knows_what_it_moved_is_not_called_taken_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, choice: str
) -> None:
    with _fleet(tmp_path, servers, deploy=_BY_PHASE) as fleet:
        _kill(fleet, "journal.phase_started.before:2")
        _cut(fleet, f"SELECT min(seq) FROM journal WHERE kind = 'held' AND seq > ({_BEGUN})")

        for _attempt in range(2):
            asked = fleet.run("recover")
            assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
            assert asked.outcomes == {"primary": "in_doubt", "kiosk": "in_doubt", LAST: "unchanged"}
            assert "has lost what the run" in asked.report["error"]["message"]
            assert "moved on kiosk, primary" in asked.report["error"]["message"]
            assert [command.rpartition(" ")[2] for command in asked.report["settle_with"]] == ["--commit", "--abort"]
        assert _new(fleet) == {"primary", "kiosk"}

        settled = fleet.run("recover", choice)

        if choice == "--commit":
            assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
            assert _new(fleet) == {"primary", "kiosk", LAST}
        else:
            assert (settled.exit_code, settled.outcomes["primary"]) == (4, "in_doubt"), settled.stderr
            assert settled.report["error"]["message"].endswith("is committed, and nobody knows what was moved there")
            assert _new(fleet) == {"primary", "kiosk"}


def test_a_rollback_with_nothing_but_its_beginning_is_settled_by_the_marks_it_has_left(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with _fleet(tmp_path, servers) as fleet:
        decided_by_journal(fleet)
        before = _of(fleet)
        assert fleet.deploy().exit_code == 0
        with proxied(fleet) as (first, _last), fleet.running(command="rollback") as run:

            def meanwhile() -> None:
                until(lambda: not fleet.last.server.prepared(fleet.last.name))
                kill_family(run.process.pid)

            first.arm(Fault("^COMMIT PREPARED", Harm.REQUEST_LOST, meanwhile=meanwhile)).wait()
            run.process.wait()
        fleet.databases |= {"default": fleet.first.django, "shard_1": fleet.last.django}
        _wait(fleet)
        (gid,) = fleet.prepared()
        assert ":primary:" in gid
        _cut(fleet, f"({_BEGUN}) + 1")

        settled = fleet.run("recover")

        assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
        assert not fleet.prepared()
        assert _of(fleet) == before
