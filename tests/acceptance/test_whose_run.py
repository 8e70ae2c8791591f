"""Plans and environments that share a journal, names and run ids: no database is moved by what a run did to another."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.dump import dump
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome, run_words
from tests.support.small_migrations import KIND, NOTE

pytestmark = pytest.mark.timeout(120)

_PLAN = """\
version = 1
[deploy]
name = "{name}"
expand_contract = false
settle_timeout = "2s"
[projects.one]
path = "project"
settings = "small_settings"
env = {{ SMALL_DATABASES = "${{SMALL_DATABASES}}" }}
[databases.own]
project = "one"
alias = "{own}"
"""
_SHARED = """\
[databases.shared]
project = "one"
alias = "shard_1"
"""


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        yield fleet


@pytest.fixture
def staging(fleet: Fleet) -> Mapping[str, str]:
    """Write a plan whose one database is `fleet.first` in this environment."""
    (fleet.directory / "shop.toml").write_text(_PLAN.format(name="shop", own="default"))
    return fleet.environment


@pytest.fixture
def production(fleet: Fleet) -> Mapping[str, str]:
    """Return the environment in which that database is `fleet.last`."""
    return {fleet.variable: json.dumps({**fleet.databases, "default": fleet.databases["shard_1"]})}


def _run(fleet: Fleet, environment: Mapping[str, str], *words: str, failpoint: str | None = None) -> Outcome:
    outcome = run_words(fleet.directory, environment, *words, failpoint=failpoint)
    if failpoint is not None:
        assert outcome.exit_code < 0, f"{failpoint} was not reached: {outcome.stdout}"
        for process in fleet.processes():
            process.wait(timeout=20)
        fleet.wait_until_alone()
    return outcome


def _write_two_plans(fleet: Fleet) -> None:
    for name, own in (("eu", "default"), ("us", "kiosk")):
        (fleet.directory / f"{name}.toml").write_text(_PLAN.format(name=name, own=own) + _SHARED)


def _new_ones(fleet: Fleet) -> list[str]:
    return [name for name, text in fleet.dumps().items() if "0002_note" in text]


@pytest.mark.long
@pytest.mark.parametrize("command", ["deploy", pytest.param("rollback", marks=pytest.mark.long)])
def test_what_was_decided_in_one_environment_moves_no_database_of_another(
    fleet: Fleet, staging: Mapping[str, str], production: Mapping[str, str], command: str
) -> None:
    if command == "rollback":
        for environment in (production, staging):
            assert _run(fleet, environment, "deploy", "shop.toml").exit_code == 0
    before = dump(fleet.last.dsn, sequences=False)
    _run(fleet, staging, command, "shop.toml", failpoint="journal.decision.after")

    refused = _run(fleet, production, "recover", "shop.toml")

    assert (refused.exit_code, refused.report["error"]["type"]) == (4, "not_in_plan"), refused.stderr
    assert "own is not in this plan: it was another database in the run " in refused.report["error"]["message"]
    assert dump(fleet.last.dsn, sequences=False) == before
    settled = _run(fleet, staging, "recover", "shop.toml")
    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
    assert ("primary" in _new_ones(fleet)) == (command == "deploy")
    assert dump(fleet.last.dsn, sequences=False) == before
    assert not fleet.prepared()


@pytest.mark.long
def test_each_environment_takes_back_its_own_last_run(
    fleet: Fleet, staging: Mapping[str, str], production: Mapping[str, str]
) -> None:
    for environment, run_id in ((production, "prod-1"), (staging, "staging-1")):
        assert _run(fleet, environment, "deploy", "shop.toml", "--run-id", run_id).report["outcome"] == "committed"
    refused = _run(fleet, production, "rollback", "shop.toml", "--run", "staging-1")
    assert (refused.exit_code, refused.report["error"]["message"]) == (
        3,
        "nothing on own shows that the run staging-1 has moved that database",
    )
    refused = _run(fleet, production, "deploy", "shop.toml", "--run-id", "staging-1")
    assert (refused.exit_code, refused.report["error"]["message"]) == (
        3,
        "the run id staging-1 is that of a deploy of other databases than own",
    )
    assert _new_ones(fleet) == ["primary", LAST]

    assert _run(fleet, production, "rollback", "shop.toml").report["outcome"] == "committed"

    assert _new_ones(fleet) == ["primary"]
    again = _run(fleet, staging, "deploy", "shop.toml", "--run-id", "staging-1")
    assert (again.exit_code, again.report["outcome"], again.report["errors"]) == (0, "nothing_to_do", [])
    again = _run(fleet, production, "deploy", "shop.toml", "--run-id", "prod-1")
    assert [error["type"] for error in again.report["errors"]] == ["taken_back"]
    assert _run(fleet, staging, "rollback", "shop.toml").report["outcome"] == "committed"
    assert _new_ones(fleet) == []


@pytest.mark.long
def test_no_database_is_taken_back_that_has_lost_the_mark_of_the_run(fleet: Fleet, staging: Mapping[str, str]) -> None:
    assert _run(fleet, staging, "deploy", "shop.toml", "--run-id", "staging-1").exit_code == 0
    with fleet.first.connect() as session:
        session.execute("DELETE FROM smooth_migrations_marker")
    before = dump(fleet.first.dsn, sequences=False)

    refused = _run(fleet, staging, "rollback", "shop.toml")

    assert (refused.exit_code, refused.report["error"]["message"]) == (
        3,
        "nothing on own shows that the run staging-1 has moved that database",
    )
    assert dump(fleet.first.dsn, sequences=False) == before


@pytest.mark.long
@pytest.mark.parametrize("command", ["deploy", "rollback"])
def test_recovery_by_a_second_plan_settles_what_is_shared_and_leaves_its_own_database_alone(
    fleet: Fleet, command: str
) -> None:
    _write_two_plans(fleet)
    if command == "rollback":
        assert _run(fleet, fleet.environment, "deploy", "eu.toml").exit_code == 0
        fleet.migrate("kiosk")
    before = dump(fleet.kiosk)
    _run(fleet, fleet.environment, command, "eu.toml", failpoint="journal.decision.after")

    refused = _run(fleet, fleet.environment, "recover", "us.toml")

    assert (refused.exit_code, refused.report["error"]["type"]) == (4, "not_in_plan"), refused.stderr
    assert not fleet.last.server.prepared(fleet.last.name)
    assert dump(fleet.kiosk) == before
    settled = _run(fleet, fleet.environment, "recover", "eu.toml")
    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
    assert [name for name in _new_ones(fleet) if name != "kiosk"] == (["primary", LAST] if command == "deploy" else [])
    assert dump(fleet.kiosk) == before
    assert _run(fleet, fleet.environment, "recover", "us.toml").report["outcome"] == "nothing_to_do"


@pytest.mark.long
@pytest.mark.parametrize(
    ("theirs", "point", "journal"),
    [
        pytest.param("committed", "journal.decision.before", "", id="committed"),
        pytest.param("rolled_back", "journal.decision.after", "", id="rolled-back", marks=pytest.mark.long),
        pytest.param(
            "committed", "journal.decision.before", "sqlite:///other.db", id="another-journal", marks=pytest.mark.long
        ),
    ],
)
def test_a_run_id_of_two_plans_lets_neither_decide_about_the_others_transaction(
    fleet: Fleet, theirs: str, point: str, journal: str
) -> None:
    _write_two_plans(fleet)
    if theirs == "rolled_back":
        with (fleet.directory / "us.toml").open("a") as us:
            us.write('[[phases]]\nname = "all"\ndatabases = ["*"]\ngate = ["false"]\n')
    if journal:
        eu = fleet.directory / "eu.toml"
        eu.write_text(eu.read_text().replace("[deploy]\n", f'[deploy]\njournal = "{journal}"\n'))
    first = _run(fleet, fleet.environment, "deploy", "us.toml", "--run-id", "build-7")
    assert first.report["outcome"] == theirs, first.stderr
    (fleet.directory / "project/demo/migrations/0003_kind.py").write_text(KIND)
    _run(fleet, fleet.environment, "deploy", "eu.toml", "--run-id", "build-7", failpoint=point)
    prepared = fleet.last.server.prepared(fleet.last.name)
    assert len(prepared) == 1

    refused = _run(fleet, fleet.environment, "recover", "us.toml")

    assert (refused.exit_code, refused.report["error"]["type"]) == (4, "not_in_plan"), refused.stderr
    assert refused.report["error"]["message"].startswith(f"{prepared[0]} was prepared by a run build-7 of ")
    assert fleet.last.server.prepared(fleet.last.name) == prepared
    settled = _run(fleet, fleet.environment, "recover", "eu.toml")
    is_new = point == "journal.decision.after"
    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed" if is_new else "rolled_back")
    assert ["0003_kind" in dump(each.dsn, sequences=False) for each in (fleet.first, fleet.last)] == [is_new] * 2
    assert _run(fleet, fleet.environment, "recover", "us.toml").report["outcome"] == "nothing_to_do"


@pytest.mark.long
def test_two_plans_that_share_a_journal_and_a_database_deploy_and_roll_back_one_after_the_other(fleet: Fleet) -> None:
    _write_two_plans(fleet)

    for command, new in (("deploy", ["primary", "kiosk", LAST]), ("rollback", [])):
        for plan in ("eu", "us") if command == "deploy" else ("us", "eu"):
            outcome = _run(fleet, fleet.environment, command, f"{plan}.toml")
            assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert _new_ones(fleet) == new
    for plan in ("eu", "us"):
        assert _run(fleet, fleet.environment, "recover", f"{plan}.toml").report["outcome"] == "nothing_to_do"
