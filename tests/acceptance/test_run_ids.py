"""Run ids that callers choose: what has committed by one stays known by it, whoever else is given the same."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import SCRIPT, run_words
from tests.support.small_migrations import NOTE

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


def _new_ones(fleet: Fleet) -> list[str]:
    return [name for name, text in fleet.dumps().items() if "0002_note" in text]


@pytest.mark.long
def test_another_commands_run_id_is_refused_and_hides_no_run(fleet: Fleet) -> None:
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"

    for command in ("rollback", "rehearse", "finalise"):
        outcome = fleet.run(command, "--run-id", "build-7")
        assert (outcome.exit_code, outcome.report["command"]) == (3, command), outcome.stderr
        assert outcome.report["error"]["message"] == "the run id build-7 is that of a deploy that has committed"

    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "nothing_to_do"
    assert fleet.run("rollback", "--run-id", "back").report["outcome"] == "committed"
    assert not _new_ones(fleet)
    again = fleet.deploy("--run-id", "build-7")
    assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do")
    assert [error["message"] for error in again.report["errors"]] == ["the run build-7 was taken back by back"]


@pytest.mark.long
def test_a_run_that_is_tried_again_and_settled_by_that_can_be_taken_back(fleet: Fleet) -> None:
    assert fleet.run("deploy", "--run-id", "build-7", failpoint="decide.after").exit_code < 0
    assert [each["unsettled"] for each in fleet.run("status").report["databases"]] == [["build-7"]] * 3
    assert fleet.told("status").count("at work, or cut off: build-7; ") == 3

    again = fleet.deploy("--run-id", "build-7")

    assert (again.exit_code, again.report["command"], again.report["outcome"]) == (0, "deploy", "nothing_to_do")
    assert _new_ones(fleet) == ["primary", "kiosk", LAST]
    assert fleet.run("runs").report["runs"][0]["outcome"] == "committed"
    assert [each["unsettled"] for each in fleet.run("status").report["databases"]] == [[]] * 3
    assert fleet.run("rollback").report["outcome"] == "committed"
    assert not _new_ones(fleet)


@pytest.mark.long
def test_a_run_of_another_deploy_with_the_same_id_decides_nothing_about_this_one(fleet: Fleet) -> None:
    plan = fleet.directory / "deploy.toml"
    ours = plan.read_text().replace(', "kiosk"', "").replace('[databases.kiosk]\nproject = "one"\nalias = "kiosk"', "")
    theirs = """\
version = 1
deploy = { name = "other" }
projects.one = { path = "project", settings = "small_settings", env = { SMALL_DATABASES = "${SMALL_DATABASES}" } }
databases.kiosk = { project = "one", alias = "kiosk" }
phases = [{ name = "all", databases = ["kiosk"], gate = ["false"] }]
"""
    plan.write_text(ours)
    assert fleet.run("deploy", "--run-id", "build-7", failpoint="journal.decision.after").exit_code < 0
    plan.write_text(theirs)
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "rolled_back"
    plan.write_text(ours)
    assert fleet.run("runs").report["runs"][0]["outcome"] is None

    settled = fleet.run("recover")

    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
    assert _new_ones(fleet) == ["primary", LAST]
    assert not fleet.prepared()


def test_an_operator_cannot_ask_for_both(fleet: Fleet) -> None:
    outcome = fleet.run("recover", "--commit", "--abort")
    assert (outcome.exit_code, outcome.report["outcome"]) == (2, "invalid")


@pytest.mark.long
def test_a_transaction_whose_name_only_begins_like_ours_is_another_programs(fleet: Fleet) -> None:
    names = ["smooth:", "smooth::primary:7", "smooth:x:y", "smooth:two\nlines:primary:1", "smooth:x:primary:one"]
    with fleet.first.connect() as session:
        for number, name in enumerate(names):
            session.execute(f"BEGIN; CREATE TABLE theirs_{number} (x int)".encode())
            session.execute(f"PREPARE TRANSACTION '{name}'".encode())

    assert fleet.run("recover", "--abort").report["outcome"] == "nothing_to_do"
    status = fleet.run("status").report["databases"][0]
    assert status["in_doubt"] == []
    assert {each["whose"] for each in status["prepared"]} == {"another_program"}
    assert fleet.deploy().report["outcome"] == "committed"
    assert sorted(fleet.prepared()) == sorted(names)
    with fleet.first.connect() as session:
        for name in names:
            session.execute(f"ROLLBACK PREPARED '{name}'".encode())


@pytest.mark.long
def test_the_mark_of_another_deploy_decides_nothing_of_a_run_that_is_cut_off_at_once(fleet: Fleet) -> None:
    plan = fleet.directory / "deploy.toml"
    ours = plan.read_text()
    plan.write_text(ours.partition("[databases.kiosk]")[0].replace('name = "small"', 'name = "billing"'))
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"
    assert _new_ones(fleet) == ["primary"]
    plan.write_text(ours)
    assert fleet.run("deploy", "--run-id", "build-7", failpoint="journal.run_started.after").exit_code < 0
    fleet.wait_until_alone()

    assert fleet.run("recover").report["outcome"] == "rolled_back"

    assert _new_ones(fleet) == ["primary"]
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"
    assert _new_ones(fleet) == ["primary", "kiosk", LAST]


@pytest.mark.long
def test_a_run_that_is_given_again_tells_which_database_was_restored_since(fleet: Fleet) -> None:
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"
    fleet.migrate("shard_1", "demo", "0001")
    with fleet.last.connect() as session:
        session.execute("DELETE FROM smooth_migrations_marker WHERE run_id = 'build-7'")

    again = fleet.deploy("--run-id", "build-7")

    assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do")
    assert [error["message"] for error in again.report["errors"]] == [
        f"nothing on {LAST} shows that the run build-7 has moved that database; it may have been restored since"
    ]
    assert _new_ones(fleet) == ["primary", "kiosk"]


def test_a_run_that_is_given_again_tells_which_database_could_not_be_asked(fleet: Fleet) -> None:
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"

    with fleet.last.away():
        again = fleet.deploy("--run-id", "build-7")

    assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do"), again.stderr
    (told,) = again.report["errors"]
    assert (told["type"], told["message"]) == (
        "not_asked",
        f"nobody can ask {LAST} whether the run build-7 has moved that database; the journal says so",
    )
    assert "status PLAN" in told["hint"]
    assert _new_ones(fleet) == ["primary", "kiosk", LAST]


_OTHER = """\
version = 1
deploy = {{ name = "other", expand_contract = false }}
projects.one = {{ path = "project", settings = "small_settings", env = {{ SMALL_DATABASES = "${{SMALL_DATABASES}}" }} }}
databases.shared = {{ project = "one", alias = "{alias}" }}
"""
_GATE = """\
import subprocess, sys
assert subprocess.run([sys.argv[1], "deploy", "other.toml", "--run-id", "build-7"]).returncode == 0
sys.exit(1)
"""


def _deploy_other(fleet: Fleet, alias: str) -> None:
    (fleet.directory / "other.toml").write_text(_OTHER.format(alias=alias))
    other = run_words(fleet.directory, fleet.environment, "deploy", "other.toml", "--run-id", "build-7")
    assert other.exit_code == 0, other.stderr


@pytest.mark.long
def test_a_run_of_another_deploy_with_the_same_id_leaves_the_mark_of_this_one(fleet: Fleet) -> None:
    assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"
    _deploy_other(fleet, "default")

    back = fleet.run("rollback")

    assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    assert not _new_ones(fleet)


@pytest.mark.long
def test_a_phase_is_taken_back_although_its_run_id_was_used_again_meanwhile(fleet: Fleet) -> None:
    (fleet.directory / "other.toml").write_text(_OTHER.format(alias="default"))
    (fleet.directory / "gate.py").write_text(_GATE)
    gate = json.dumps([sys.executable, "gate.py", SCRIPT])
    fleet.plan(deploy='expand_contract = false\ncommit = "phase"', shards=f"gate = {gate}")

    failed = fleet.deploy("--run-id", "build-7")

    assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
    assert failed.report["error"]["type"] == "gate_failed"
    assert not _new_ones(fleet)


@pytest.mark.long
def test_the_mark_on_a_last_resource_decides_although_another_deploy_has_used_the_same_id(fleet: Fleet) -> None:
    fleet.plan(servers='atomicity = "two_phase"')
    # Its commit on kiosk is the decision, which the journal is yet to be told.
    assert fleet.run("deploy", "--run-id", "build-7", failpoint="journal.decision.before").exit_code == -9
    fleet.wait_until_alone()
    _deploy_other(fleet, "kiosk")

    settled = fleet.run("recover")

    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
    assert _new_ones(fleet) == ["primary", "kiosk", LAST]
    assert not fleet.prepared()
