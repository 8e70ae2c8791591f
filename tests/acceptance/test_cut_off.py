"""What is said of a run that was cut off, when it has been settled."""

import signal
from pathlib import Path

import pytest

from tests.support.deploys import small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE, failing

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"'


@pytest.mark.parametrize(
    ("command", "point", "when"),
    [
        ("deploy", "journal.decision.after", "while it was taken back"),
        pytest.param("deploy", "journal.held.after", "before its decision", marks=pytest.mark.long),
        pytest.param("rehearse", "journal.intent.after", "while it rehearsed", marks=pytest.mark.long),
    ],
)
def test_it_is_said_when_it_was_cut_off(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path, command: str, point: str, when: str
) -> None:
    fails = failing("if editor.connection.alias == 'shard_1': raise ValueError('no')")
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": fails}) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')
        before = fleet.dumps(sequences=False, applied=False)
        assert fleet.run(command, failpoint=point).exit_code == -signal.SIGKILL
        for process in fleet.processes():
            process.wait(timeout=20)
        fleet.wait_until_alone()

        recovered = fleet.run("recover")

        assert (recovered.exit_code, recovered.report["outcome"]) == (0, "rolled_back"), recovered.stderr
        assert recovered.report["error"]["message"].startswith(f"it was cut off {when}")
        assert fleet.dumps(sequences=False, applied=False) == before
