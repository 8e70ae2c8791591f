"""Staging and production in one journal, under one deploy name: neither moves, waits for or hides the other's."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, copy_of, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY, decided_by_journal, dumps_of

pytestmark = pytest.mark.timeout(180)

_ALL = {"primary", "kiosk", LAST}


@pytest.fixture
def staging(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """Make a checkout whose journal is outside it."""
    with small_fleet(tmp_path / "staging", pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=f'{DEPLOY}\njournal = "sqlite:///{tmp_path}/journal/journal.db"')
        decided_by_journal(fleet)
        yield fleet


@pytest.fixture
def production(staging: Fleet, tmp_path: Path) -> Iterator[Fleet]:
    """Make a second checkout of the same plan, with databases of its own."""
    with copy_of(staging, tmp_path / "production") as fleet:
        yield fleet


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in dumps_of(fleet).items() if "0002_note" in text}


def _kill(fleet: Fleet, point: str, *options: str) -> None:
    assert fleet.run("deploy", *options, failpoint=point).exit_code == -9, f"{point} was not reached"
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


def _left_alone(outcome: Outcome) -> list[str]:
    return [each["type"] for each in outcome.report["errors"]]


def _keep_the_file_alone(fleet: Fleet) -> None:
    plan = fleet.directory / "deploy.toml"
    head, _, rest = plan.read_text().partition("[databases.primary]")
    kiosk = rest[rest.index("[databases.kiosk]") : rest.index("[databases.shards]")]
    plan.write_text(f"{head}{kiosk}")


def _keep_the_servers_alone(fleet: Fleet) -> None:
    plan = fleet.directory / "deploy.toml"
    head, _, rest = plan.read_text().partition("[databases.kiosk]")
    plan.write_text(f"{head}{rest[rest.index('[databases.shards]') :]}".replace(', "kiosk"', ""))


@pytest.mark.long
@pytest.mark.parametrize(
    "point",
    [
        "journal.decision.after",
        pytest.param("journal.run_started.after", marks=pytest.mark.long),
        pytest.param("journal.decision.before", marks=pytest.mark.long),
    ],
)
def test_a_deploy_goes_on_that_shares_no_database_with_the_run_that_was_cut_off(
    staging: Fleet, production: Fleet, point: str
) -> None:
    before = dumps_of(staging)
    _kill(staging, point)
    prepared = staging.prepared()
    assert bool(prepared) == point.startswith("journal.decision")

    assert production.run("rehearse").exit_code == 0
    deployed = production.run("deploy")

    assert (deployed.exit_code, deployed.report["outcome"]) == (0, "committed"), deployed.stderr
    assert _left_alone(deployed) == ["another_environment"]
    assert "with the plan, and in the environment, of that run" in deployed.report["errors"][0]["hint"]
    (warned,) = (line for line in deployed.named("log.message") if line.get("logger") == "recovery")
    assert warned["message"] == deployed.report["errors"][0]["message"]
    assert _new(production) == _ALL
    assert staging.prepared() == prepared
    assert [each["unsettled"] for each in production.run("status").report["databases"]] == [[]] * 3
    unsettled = {each["run_id"] for each in staging.run("runs").report["runs"] if each["outcome"] is None}
    assert [{*each["unsettled"]} for each in staging.run("status").report["databases"]] == [unsettled] * 3
    is_new = point == "journal.decision.after"
    settled = staging.run("recover")
    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed" if is_new else "rolled_back")
    assert not staging.prepared()
    assert dumps_of(staging) == (dumps_of(production) if is_new else before)
    assert _left_alone(production.run("recover")) == []
    assert production.run("rollback").report["outcome"] == "committed"
    assert (_new(production), _new(staging)) == (set(), _ALL if is_new else set())


def test_no_file_is_run_forward_by_the_decision_about_one_of_the_same_name_in_another_checkout(
    staging: Fleet, production: Fleet
) -> None:
    """What is left of the run in the databases on servers keeps it from being another environment's altogether."""
    production.databases["default"] = staging.databases["default"]
    _kill(staging, "journal.decision.after")

    refused = production.run("deploy")

    assert (refused.exit_code, refused.report["outcome"]) == (4, "needs_operator"), refused.stderr
    told = {each["database"]: each for each in (refused.report["error"], *refused.report["errors"])}
    assert {each["type"] for each in told.values()} == {"not_in_plan"}
    assert told.keys() == {"kiosk", LAST}
    assert f"sqlite:{staging.kiosk}" in told["kiosk"]["hint"]
    assert refused.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --commit"]
    assert _new(production) == set()
    assert production.run_printed(refused).report["outcome"] == "committed"
    assert _new(production) == set()
    assert len(staging.prepared()) == 1
    assert staging.run("recover").report["outcome"] == "committed"
    assert _new(staging) == _ALL


@pytest.mark.long
def test_an_operator_is_told_to_abort_what_was_not_decided(staging: Fleet, production: Fleet) -> None:
    before = dumps_of(staging)
    production.databases["default"] = staging.databases["default"]
    _kill(staging, "journal.decision.before")

    refused = production.run("deploy")

    assert (refused.exit_code, refused.report["error"]["type"]) == (4, "not_in_plan"), refused.stderr
    assert refused.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --abort"]
    assert production.run_printed(refused).report["outcome"] == "rolled_back"
    assert staging.run("recover").exit_code == 0
    assert not staging.prepared()
    assert dumps_of(staging) == before


@pytest.mark.long
def test_the_id_of_a_run_of_another_file_of_the_same_name_is_refused(staging: Fleet, production: Fleet) -> None:
    for fleet in (staging, production):
        _keep_the_file_alone(fleet)
    assert staging.run("deploy", "--run-id", "build-7").report["outcome"] == "committed"

    refused = production.run("deploy", "--run-id", "build-7")

    assert (refused.exit_code, refused.report["error"]["message"]) == (
        3,
        "the run id build-7 is that of a deploy of other databases than kiosk",
    )
    assert "--run-id" in refused.report["error"]["hint"]
    assert (_new(staging), _new(production)) == ({"kiosk"}, set())
    assert production.run("deploy", "--run-id", "build-8").report["outcome"] == "committed"
    assert _new(production) == {"kiosk"}
    assert production.run("deploy", "--run-id", "build-8").report["errors"] == []


@pytest.mark.long
def test_the_id_of_a_run_is_refused_where_nobody_can_ask_whether_these_are_its_databases(
    staging: Fleet, production: Fleet
) -> None:
    for fleet in (staging, production):
        _keep_the_servers_alone(fleet)
    assert staging.run("deploy", "--run-id", "build-7").report["outcome"] == "committed"
    message = f"nobody can ask primary, {LAST} whether the run build-7 has moved that database"

    with production.first.away(), production.last.away():
        refused, back = production.run("deploy", "--run-id", "build-7"), production.run("rollback")

    for outcome in (refused, back):
        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
        assert outcome.report["error"]["message"] == message
        assert {each["place"] for each in outcome.report["errors"]} == {"primary", LAST}
    assert "--run-id" in refused.report["error"]["hint"]
    assert (_new(staging), _new(production)) == ({"primary", LAST}, set())
    assert production.run("deploy", "--run-id", "build-8").report["outcome"] == "committed"
    assert _new(production) == {"primary", LAST}


@pytest.mark.long
def test_the_id_of_a_run_that_waits_in_another_environment_is_refused(staging: Fleet, production: Fleet) -> None:
    _kill(staging, "journal.decision.after", "--run-id", "build-7")

    refused = production.run("deploy", "--run-id", "build-7")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert "--run-id" in refused.report["error"]["hint"]
    assert _new(production) == set()
    assert staging.run("recover").report["outcome"] == "committed"
    assert _new(staging) == _ALL


@pytest.mark.long
def test_a_checkout_that_was_moved_goes_on_where_its_file_shows_the_run(staging: Fleet, tmp_path: Path) -> None:
    _keep_the_file_alone(staging)
    assert staging.run("deploy", "--run-id", "build-7").report["outcome"] == "committed"
    moved = Fleet(tmp_path / "moved", staging.first, staging.last, staging.settings, staging.variable)
    shutil.move(staging.directory, moved.directory)

    again = moved.run("deploy", "--run-id", "build-7")
    assert (again.exit_code, again.report["outcome"], again.report["errors"]) == (0, "nothing_to_do", [])
    back = moved.run("rollback")

    assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    assert _new(moved) == set()
    shutil.move(moved.directory, staging.directory)


@pytest.mark.parametrize("is_moved", [False, True])
def test_what_an_earlier_version_wrote_is_compared_as_it_wrote_it(
    staging: Fleet, tmp_path: Path, *, is_moved: bool
) -> None:
    backup = staging.kiosk.read_bytes()
    _kill(staging, "journal.decision.after")
    staging.kiosk.write_bytes(backup)
    with closing(sqlite3.connect(tmp_path / "journal/journal.db")) as journal, journal:
        journal.execute("DROP TRIGGER journal_is_not_updated")
        journal.execute("UPDATE journal SET data = replace(data, ?, 'sqlite:')", [f"sqlite:{staging.directory}/"])
    fleet = staging
    if is_moved:
        fleet = Fleet(tmp_path / "moved", staging.first, staging.last, staging.settings, staging.variable)
        shutil.move(staging.directory, fleet.directory)

    settled = fleet.run("recover")

    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
    assert _new(fleet) == _ALL
