"""Run ids as long as they may be: nobody's sessions are taken for another run's."""

from pathlib import Path

import pytest

from tests.support.deploys import small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import running_in
from tests.support.small_migrations import NOTE

pytestmark = pytest.mark.timeout(120)

# PostgreSQL cuts the name of a session off after 63 bytes.
_ONE, _OTHER = (f"release-{'x' * 55}{letter}" for letter in "ab")
_DEPLOY = 'expand_contract = false\natomicity = "held_open"\nlock_timeout = "60s"'


@pytest.mark.long
def test_a_recovery_ends_no_session_of_a_run_whose_id_begins_alike(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    directory = tmp_path / "one"
    with small_fleet(directory, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=_DEPLOY)
        assert fleet.run("deploy", "--run-id", _ONE, failpoint="journal.decision.before").exit_code == -9
        for process in fleet.processes():
            process.wait(timeout=20)
        fleet.wait_until_alone()
        # With a journal of its own.
        other = tmp_path / "other"
        other.mkdir()
        text = (directory / "deploy.toml").read_text()
        (other / "deploy.toml").write_text(text.replace('path = "project"', f'path = "{directory}/project"'))

        with (
            fleet.first.connect() as session,
            running_in(other, fleet.environment, "--run-id", _OTHER) as run,
        ):
            session.execute("BEGIN; LOCK TABLE demo_item")
            run.wait_for("lock.waiting", database="primary")
            kept_out = fleet.run("recover")
            session.execute("ROLLBACK")
            outcome = run.finish()

        assert (kept_out.exit_code, kept_out.report["outcome"]) == (5, "locked"), kept_out.stderr
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert outcome.named("worker.failed") == outcome.named("lock.retry") == []
        assert fleet.run("recover").exit_code == 0
