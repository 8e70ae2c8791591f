"""A run by phase is settled by the phases that it had, and not by those that the plan has by then."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND, NOTE

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"\ncommit = "phase"\non_failure = "halt"'
_PHASES = {
    "split": {"canary": ["kiosk"], "main": ["primary"], "fleet": ["shards:*"]},
    "merged": {"all": ["primary", "kiosk", "shards:*"]},
    "moved": {"canary": ["primary"], "fleet": ["kiosk", "shards:*"]},
    "names_exchanged": {"fleet": ["primary", "kiosk"], "canary": ["shards:*"]},
}


def _rewrite(fleet: Fleet, phases: dict[str, list[str]]) -> None:
    plan = fleet.directory / "deploy.toml"
    head = plan.read_text().partition("[[phases]]")[0]
    tables = [
        f"[[phases]]\nname = {json.dumps(name)}\ndatabases = {json.dumps(them)}\n" for name, them in phases.items()
    ]
    plan.write_text(head + "".join(tables))


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in fleet.dumps(sequences=False, applied=False).items() if "0003_kind" in text}


def _cut_off_in_the_first_phase(fleet: Fleet) -> None:
    """Kill a deploy whose first phase is decided, and committed on the SQLite file alone."""
    fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')
    killed = fleet.run("deploy", failpoint="commit_prepared.before")
    assert killed.exit_code == -9, killed.stderr
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()
    assert len(fleet.prepared()) == 1


@pytest.mark.parametrize(
    "phases",
    [
        pytest.param(phases, id=name, marks=[] if name == "split" else pytest.mark.long)
        for name, phases in _PHASES.items()
    ],
)
def test_a_decided_phase_is_committed_as_it_was_and_nothing_beside_it(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path, phases: dict[str, list[str]]
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        _cut_off_in_the_first_phase(fleet)
        _rewrite(fleet, phases)

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert recovered.outcomes == {"primary": "committed", "kiosk": "committed", LAST: "unchanged"}
        assert _new(fleet) == {"primary", "kiosk"}
        assert not fleet.prepared()


@pytest.mark.long
def test_a_run_of_an_earlier_version_is_settled_by_the_phases_of_the_plan(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        _cut_off_in_the_first_phase(fleet)
        with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
            journal.execute("DROP TRIGGER journal_is_not_updated")
            told = "UPDATE journal SET data = json_remove(data, '$.phases') WHERE kind = 'run_started'"
            assert journal.execute(told).rowcount

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert _new(fleet) == {"primary", "kiosk"}
        assert not fleet.prepared()
