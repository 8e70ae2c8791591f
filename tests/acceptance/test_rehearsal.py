"""Rehearsals: the real migrations on the real databases, of which nothing is left."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import BROKEN, KIND, NOTE
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


def _databases(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {entry["database"]: entry for entry in outcome.report["databases"]}


def test_a_rehearsal_says_what_would_happen_and_leaves_nothing(fleet: Fleet) -> None:
    before = fleet.dumps()

    outcome = fleet.run("rehearse")

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "nothing_to_do"), outcome.stderr
    assert set(outcome.outcomes.values()) == {"rolled_back"}
    assert fleet.dumps() == before
    assert not fleet.prepared()
    primary = _databases(outcome)["primary"]
    assert (primary["rehearsed"], primary["applied"], primary["unapplied"]) == (True, [], ["demo.0002_note"])
    assert (primary["tier"], primary["rewritten"]) == ("two_phase", [])
    strongest = [lock for lock in primary["locks"] if lock["mode"] == "AccessExclusiveLock"]
    assert [lock["relation"] for lock in strongest] == ["demo_item"]
    assert 0 < strongest[0]["held_ms"] <= primary["duration_ms"]
    assert {line["database"] for line in outcome.named("database.rehearsed")} == {"primary", "kiosk", LAST}
    assert fleet.deploy().exit_code == 0


@pytest.mark.long
def test_a_rehearsal_is_a_run_like_others_and_says_so_in_words(fleet: Fleet) -> None:
    assert fleet.run("rehearse", "--run-id", "dress").exit_code == 0
    assert [(run["command"], run["outcome"]) for run in fleet.run("runs").report["runs"]][:1] == [
        ("rehearse", "nothing_to_do")
    ]
    report = fleet.run("report", "--run", "dress").report
    assert [entry["rehearsed"] for entry in report["databases"]] == [True, True, True]
    # A run id that has rehearsed has committed nothing.
    assert fleet.deploy("--run-id", "dress").report["outcome"] == "committed"


@pytest.mark.long
def test_locks_that_a_deploy_would_not_hold_for_so_long_are_told(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\nmax_lock_hold = "1ms"', servers='atomicity = "two_phase"')
    before = fleet.dumps(sequences=False)

    rehearsed, deployed = fleet.run("rehearse"), fleet.deploy()

    assert (rehearsed.exit_code, rehearsed.report["outcome"]) == (3, "refused"), rehearsed.stderr
    told = _databases(rehearsed)["primary"]["error"]
    assert (told["type"], told["message"].partition(" for ")[0]) == ("max_lock_hold", "strong locks were held")
    assert (deployed.exit_code, deployed.report["error"]["type"]) == (1, "max_lock_hold")
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_tables_that_are_rewritten_are_named_with_their_size(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    numbered = migration(
        "migrations.RunSQL(\"UPDATE demo_item SET name = '7'\", migrations.RunSQL.noop)",
        "migrations.AlterField('item', 'name', models.IntegerField(default=0))",
        'migrations.RunSQL("INSERT INTO demo_item (name) VALUES (8)", migrations.RunSQL.noop)',
        after=[("demo", "0001_item")],
    )
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_number": numbered}) as fleet:
        fleet.plan(servers='atomicity = "held_open"')
        before = fleet.dumps()

        outcome = fleet.run("rehearse")

        assert outcome.exit_code == 0, outcome.stderr
        primary, kiosk, _last = outcome.report["databases"]
        assert [(table["table"], table["size_bytes"] > 0) for table in primary["rewritten"]] == [("demo_item", True)]
        assert primary["sequences_advanced"] == ["public.demo_item_id_seq", "public.django_migrations_id_seq"]
        assert (kiosk["rehearsed"], kiosk["locks"], kiosk["rewritten"]) == (True, [], [])
        assert fleet.dumps() == before


def test_a_failure_is_named_and_keeps_no_other_database_from_its_rehearsal(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0002_note": NOTE, "demo.0003_kind": BROKEN}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        before = fleet.dumps()

        outcome = fleet.run("rehearse")

        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
        assert set(outcome.outcomes.values()) == {"failed"}
        assert {entry["error"]["migration"] for entry in outcome.report["databases"]} == {"demo.0003_kind"}
        assert len(outcome.named("migration.failed")) == len(fleet.databases)
        assert fleet.dumps() == before


@pytest.mark.long
@pytest.mark.parametrize("ends_at", ["demo.0002_note", "demo.0003_kind"])
def test_what_no_transaction_holds_is_left_alone_and_said(
    ends_at: str, pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}
    release[ends_at] = release[ends_at].replace("atomic = True", "atomic = False")
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        before = fleet.dumps()

        outcome = fleet.run("rehearse")

        assert outcome.exit_code == 0, outcome.stderr
        rehearsed = {name: entry["rehearsed"] for name, entry in _databases(outcome).items()}
        assert rehearsed == {"primary": False, "kiosk": True, LAST: False}
        primary = _databases(outcome)["primary"]
        assert primary["reason"] == f"{ends_at} cannot run in a transaction; nothing from it on was run"
        assert primary["unapplied"] == [name for name in release if name < ends_at]
        assert fleet.dumps() == before


@pytest.mark.long
def test_traffic_comes_first(fleet: Fleet) -> None:
    before = fleet.dumps()
    with fleet.first.connect() as session:
        session.execute("BEGIN; SELECT * FROM demo_item FOR UPDATE")
        fleet.plan(deploy='expand_contract = false\nlock_timeout = "1h"\nlock_retries = 1')

        outcome = fleet.run("rehearse", "--lock-timeout", "50ms")

    assert outcome.exit_code == 3, outcome.stderr
    assert outcome.report["error"]["sqlstate"] == "55P03"
    assert outcome.outcomes == {"primary": "failed", "kiosk": "rolled_back", LAST: "rolled_back"}
    assert fleet.dumps() == before


@pytest.mark.long
def test_an_interrupted_run_is_settled_first_and_not_by_a_rehearsal(fleet: Fleet) -> None:
    assert fleet.run("deploy", failpoint="journal.decision.after").exit_code == -signal.SIGKILL
    for process in fleet.processes():
        process.wait(timeout=20)

    refused = fleet.run("rehearse")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert refused.report["error"]["hint"] == "smooth-orchestrate recover PLAN"
    assert fleet.run("recover").report["outcome"] == "committed"
    assert fleet.run("rehearse").report["outcome"] == "nothing_to_do"


@pytest.mark.parametrize("limit", ["0s", "soon"])
def test_a_lock_timeout_that_is_none_is_a_usage_error(fleet: Fleet, limit: str) -> None:
    assert fleet.run("rehearse", "--lock-timeout", limit).exit_code == 2
