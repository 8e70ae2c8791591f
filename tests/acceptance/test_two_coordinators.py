"""Two coordinators at once, of which one acts and the other exits with 5, whatever happens to the first."""

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from smooth_migrations.lease import Lease, Owner
from tests.support.deploys import GATE_WAITS, Fleet, small_fleet
from tests.support.django_connections import connected
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Running
from tests.support.small_migrations import NOTE

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """Databases with a migration to come, and a gate that waits for a file."""
    with small_fleet(tmp_path / "plan", pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(shards=GATE_WAITS)
        yield fleet


def _let_go(fleet: Fleet, run: Running, *, exit_code: int) -> None:
    (fleet.directory / "go").touch()
    outcome = run.finish()
    assert outcome.exit_code == exit_code, outcome.stderr


def test_a_second_run_of_a_deploy_is_kept_out(fleet: Fleet) -> None:
    with fleet.running() as run:
        run.wait_for("gate.started")
        second = fleet.deploy()
        assert (second.exit_code, second.report["outcome"]) == (5, "locked"), second.stderr
        assert "another run of the deploy 'small' is at work: host " in second.report["error"]["message"]
        assert second.log == []
        _let_go(fleet, run, exit_code=0)
    third = fleet.deploy()
    assert third.report["outcome"] == "nothing_to_do"


def test_of_two_that_hold_what_the_other_one_wants_the_older_one_acts(fleet: Fleet) -> None:
    (fleet.directory / "go").touch()
    with connected(fleet.last.django) as other:
        younger = Lease.acquire(other, Owner.here("29991231T235959-ffffffff"))
        with fleet.running() as run:
            assert run.wait_for("output.captured")["line"].startswith("waiting for a run that has begun later")
            younger.release()
            outcome = run.finish()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert fleet.run("rollback").exit_code == 0
        older = Lease.acquire(other, Owner.here("20000101T000000-00000000"))
        refused = fleet.deploy()
        older.release()
        assert (refused.exit_code, refused.report["outcome"]) == (5, "locked"), refused.stderr
        assert not refused.named("output.captured")


@pytest.mark.long
def test_another_plan_over_the_same_databases_is_kept_out(fleet: Fleet, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "project").symlink_to(fleet.directory / "project")
    text = (fleet.directory / "deploy.toml").read_text().replace('name = "small"', 'name = "elsewhere"', 1)
    (other / "deploy.toml").write_text(text)
    twin = Fleet(other, fleet.first, fleet.last, fleet.settings, fleet.variable)
    twin.databases = fleet.databases
    before = fleet.dumps()
    with fleet.running() as run:
        run.wait_for("gate.started")
        second = twin.deploy()
        assert (second.exit_code, second.report["outcome"]) == (5, "locked"), second.stderr
        assert "another run holds the lease of the database" in second.report["error"]["message"]
        run.process.terminate()
        assert run.finish().exit_code == 1
    assert fleet.dumps() == before
    shutil.rmtree(other)


def test_a_coordinator_that_was_frozen_past_its_lease_commits_nothing(fleet: Fleet) -> None:
    before = fleet.dumps()
    with fleet.running() as run:
        run.wait_for("gate.started")
        run.process.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
            journal.execute("UPDATE lease SET expires_s = 0")
        # Its workers, which are not frozen, keep the databases.
        assert fleet.deploy().exit_code == 5
        run.process.send_signal(signal.SIGCONT)
        (fleet.directory / "go").touch()
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (5, "locked"), outcome.stderr
    assert outcome.report["error"]["type"] == "lease_lost"
    assert fleet.decisions()[1:] == []
    assert fleet.dumps() == before
    assert fleet.deploy().exit_code == 0
