"""A run by phase is settled by the phases that it had, and not by those that the plan has by then."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND, NOTE
from tests.support.small_project import migration

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


@pytest.mark.long
def test_a_phase_that_came_since_takes_back_none_that_has_committed(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        fleet.plan(deploy=_DEPLOY.replace("halt", "rollback"), servers='atomicity = "two_phase"')
        assert fleet.run("deploy", failpoint="journal.run_finished.before").exit_code == -9
        fleet.wait_until_alone()
        fleet.databases["extra"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "extra.sqlite3")}
        plan = tmp_path / "deploy.toml"
        extra = '[databases.extra]\nproject = "one"\nalias = "extra"\n[databases.shards]'
        text = plan.read_text().replace("[databases.shards]", extra)
        plan.write_text(f'{text}\n[[phases]]\nname = "extra"\ndatabases = ["extra"]\n')

        recovered = fleet.run("recover")

        assert (recovered.exit_code, recovered.report["outcome"]) == (0, "committed"), recovered.stderr
        assert _new(fleet) == {"primary", "kiosk", LAST}


@pytest.mark.long
def test_a_database_that_is_gone_before_its_phase_began_is_named(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        fleet.plan(deploy=_DEPLOY.replace("halt", "rollback"), servers='atomicity = "two_phase"')
        assert fleet.run("deploy", failpoint="journal.phase_started.before:2").exit_code == -9
        fleet.wait_until_alone()
        plan = tmp_path / "deploy.toml"
        head, _, rest = plan.read_text().partition("[databases.shards]")
        plan.write_text(head + rest[rest.index("[[phases]]") : rest.rindex("[[phases]]")])

        recovered = fleet.run("recover")

        assert (recovered.exit_code, recovered.report["outcome"]) == (4, "needs_operator"), recovered.stderr
        told = [recovered.report["error"], *recovered.report["errors"]]
        assert f"{LAST} is not in this plan" in [each["message"] for each in told if each]


_DROP = migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")])


@pytest.mark.long
def test_what_is_run_forward_is_split_as_in_the_other_databases(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_next": _DROP}) as fleet:
        fleet.plan(deploy='expand_contract = true\nsettle_timeout = "2s"', servers='atomicity = "two_phase"')
        plan = tmp_path / "deploy.toml"
        head, tier, tail = plan.read_text().rpartition('atomicity = "two_phase"')
        plan.write_text(head + tier.replace("two_phase", "held_open") + tail)
        assert fleet.run("deploy", failpoint="journal.decision.after").exit_code == -9
        fleet.wait_until_alone()
        plan.write_text(plan.read_text().replace("expand_contract = true", "expand_contract = false"))

        recovered = fleet.run("recover")

        assert (recovered.exit_code, recovered.report["outcome"]) == (0, "committed"), recovered.stderr
        assert all("name character varying(" in text or '"name" varchar' in text for text in fleet.dumps().values())
        pending = [each["contract_pending"] for each in fleet.run("status").report["databases"]]
        assert all(pending), pending
