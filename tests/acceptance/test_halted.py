"""A run that halted leaves the phases new that had committed, is called so, and can be taken back."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, copy_of, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import SCRIPT
from tests.support.small_migrations import KIND, NOTE
from tests.support.terminals import terminal, why_no_terminal
from tests.support.tiers import proxied

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"\ncommit = "phase"\non_failure = "halt"'


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"', shards='gate = ["false"]')
        yield fleet


def _of(fleet: Fleet) -> dict[str, str]:
    return fleet.dumps(sequences=False, applied=False)


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in _of(fleet).items() if "0003_kind" in text}


def _last_outcome(fleet: Fleet, run_id: str) -> str:
    runs = fleet.run("runs").report["runs"]
    return next(str(run["outcome"]) for run in runs if run["run_id"] == run_id)


def _held_back(fleet: Fleet) -> set[str]:
    return {each["database"] for each in fleet.run("status").report["databases"] if each["contract_pending"]}


def _halt(fleet: Fleet) -> None:
    halted = fleet.deploy("--run-id", "build-7")
    assert (halted.exit_code, halted.report["errors"][-1]["type"]) == (4, "halted"), halted.stderr
    assert _new(fleet) == {"primary", "kiosk"}


@pytest.mark.parametrize(
    "options", [pytest.param((), id="last"), pytest.param(("--run", "build-7"), id="named", marks=pytest.mark.long)]
)
def test_what_a_halted_run_has_committed_is_taken_back(fleet: Fleet, options: tuple[str, ...]) -> None:
    before = _of(fleet)
    _halt(fleet)

    back = fleet.run("rollback", *options)

    assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    assert back.outcomes == {"primary": "committed", "kiosk": "committed", LAST: "unchanged"}
    assert _of(fleet) == before
    assert back.report["takes_back"] == "build-7"
    told = fleet.run("report", "--run", "build-7")
    assert (told.exit_code, told.report["outcome"]) == (4, "halted")
    assert told.report["since"] == [{"command": "rollback", "run_id": back.report["run_id"]}]
    assert {"settle_with", "runbook"} & told.report.keys() == set()
    again = fleet.run("rollback", *options)
    assert again.exit_code == 3
    assert "the run build-7 was taken back by" in again.report["error"]["message"]


@pytest.mark.skipif(why_no_terminal() is not None, reason=str(why_no_terminal()))
def test_a_terminal_is_told_what_to_paste_with_the_words_that_were_typed(fleet: Fleet) -> None:
    _halt(fleet)
    typed = {
        "rollback deploy.toml --run build-6 --discard-data": "rollback deploy.toml --run build-6 --discard-data",
        "--no-replay --run-id build-7 deploy.toml": "deploy --no-replay deploy.toml",
    }
    with terminal(fleet.directory, fleet.environment, 120, 50) as screen:
        for words, pasted in typed.items():
            screen.clear()
            screen.type(f"{shlex.quote(SCRIPT)} {words}")
            assert f"  smooth-orchestrate {pasted}" in screen.wait_for("exit 3, ")


@pytest.mark.long
def test_a_halted_run_is_not_called_rolled_back_while_a_database_is_new(fleet: Fleet) -> None:
    _halt(fleet)

    recovered = fleet.run("recover")

    assert (recovered.exit_code, recovered.report["outcome"]) == (0, "halted"), recovered.stderr
    assert recovered.outcomes == {"primary": "committed", "kiosk": "committed", LAST: "unchanged"}
    assert _last_outcome(fleet, "build-7") == "halted"
    assert _new(fleet) == {"primary", "kiosk"}
    assert fleet.run("recover").report["outcome"] == "nothing_to_do"


@pytest.mark.long
def test_a_run_that_is_cut_off_after_its_first_phase_halts_there(fleet: Fleet) -> None:
    before = _of(fleet)
    killed = fleet.run("deploy", "--run-id", "build-7", failpoint="journal.phase_started.before:2")
    assert killed.exit_code == -9
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()

    back = fleet.run("rollback", "--run", "build-7")

    assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    assert _last_outcome(fleet, "build-7") == "halted"
    assert _of(fleet) == before


@pytest.mark.long
def test_a_deploy_that_goes_on_after_a_halted_one_is_a_run_of_its_own(fleet: Fleet) -> None:
    before = _of(fleet)
    _halt(fleet)
    fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')

    refused = fleet.deploy("--run-id", "build-7")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert refused.report["error"]["message"] == "the run build-7 was halted, and what it has committed stays"
    assert refused.report["error"]["type"] == "run_id_taken"
    assert _new(fleet) == {"primary", "kiosk"}
    assert fleet.deploy("--run-id", "build-8").exit_code == 0
    assert _new(fleet) == {"primary", "kiosk", LAST}
    assert fleet.run("rollback").exit_code == 0
    assert _new(fleet) == {"primary", "kiosk"}
    assert fleet.run("rollback", "--run", "build-7").exit_code == 0
    assert _of(fleet) == before
    assert fleet.deploy("--run-id", "build-7").exit_code == 0
    assert _new(fleet) == {"primary", "kiosk", LAST}


@pytest.mark.long
def test_what_a_halted_run_holds_back_is_done_when_a_deploy_has_gone_on(fleet: Fleet) -> None:
    deploy = _DEPLOY.replace("false", "true")
    finalise = '\n[finalise]\nbake_time = "0s"\n'
    plan = fleet.directory / "deploy.toml"
    fleet.plan(deploy=deploy, servers='atomicity = "two_phase"', shards='gate = ["false"]')
    plan.write_text(plan.read_text() + finalise)
    _halt(fleet)
    assert fleet.run("recover").exit_code == 0

    early = fleet.run("finalise")

    assert (early.exit_code, early.report["outcome"]) == (3, "refused"), early.stderr
    assert early.report["error"]["message"].endswith("was halted: not every database is at its release")
    fleet.plan(deploy=deploy, servers='atomicity = "two_phase"')
    plan.write_text(plan.read_text() + finalise)
    assert fleet.deploy("--run-id", "build-8").exit_code == 0
    assert fleet.run("rollback").exit_code == 0
    assert fleet.run("finalise").exit_code == 3
    assert _new(fleet) == {"primary", "kiosk"}
    assert fleet.deploy("--run-id", "build-9").exit_code == 0
    finalised = fleet.run("finalise")
    assert (finalised.exit_code, finalised.report["outcome"]) == (0, "committed"), finalised.stderr
    assert {each["database"] for each in finalised.named("contract.applied")} == {"primary", "kiosk", LAST}
    assert _held_back(fleet) == set()


@pytest.mark.long
def test_what_a_halted_run_holds_back_waits_for_a_database_on_which_its_migrations_are_not_recorded(
    fleet: Fleet,
) -> None:
    deploy = f'{_DEPLOY.replace("false", "true")}\n[finalise]\nbake_time = "0s"'
    fleet.plan(deploy=deploy, servers='atomicity = "two_phase"', shards='gate = ["false"]')
    _halt(fleet)
    assert fleet.run("recover").exit_code == 0
    fleet.plan(deploy=deploy, servers='atomicity = "two_phase"\nexpand_contract = false')
    assert fleet.deploy("--run-id", "build-8").report["outcome"] == "committed"
    with fleet.last.connect() as session:
        session.execute("DELETE FROM django_migrations WHERE app = 'demo' AND name = '0003_kind'")

    behind = fleet.run("finalise")

    assert (behind.exit_code, behind.report["outcome"]) == (3, "refused"), behind.stderr
    assert behind.report["error"]["message"].endswith("was halted: not every database is at its release")
    (missing,) = behind.report["errors"]
    assert (missing["place"], missing["message"]) == (LAST, "demo.0003_kind is not recorded as applied")
    assert _held_back(fleet) == {"primary", "kiosk"}
    fleet.migrate("shard_1", "--fake")
    assert fleet.run("finalise").report["outcome"] == "committed"
    assert _held_back(fleet) == set()


@pytest.mark.long
def test_a_deploy_of_another_environment_ends_nothing_that_a_halted_run_holds_back(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("other")
    deploy = (
        f'{_DEPLOY.replace("false", "true")}\njournal = "sqlite:///{place}/journal.db"\n[finalise]\nbake_time = "0s"'
    )
    with copy_of(fleet, place / "checkout") as other:
        fleet.plan(deploy=deploy, servers='atomicity = "two_phase"', shards='gate = ["false"]')
        _halt(fleet)
        assert fleet.run("recover").exit_code == 0
        other.plan(deploy=deploy, servers='atomicity = "two_phase"')
        assert other.deploy("--run-id", "build-8").report["outcome"] == "committed"
        assert _new(other) == {"primary", "kiosk", LAST}
        before = _of(fleet)

        early = fleet.run("finalise")

        assert (early.exit_code, early.report["outcome"]) == (3, "refused"), early.stderr
        assert early.report["error"]["message"].endswith("was halted: not every database is at its release")
        assert "smooth-orchestrate deploy PLAN goes on" in early.report["error"]["hint"]
        assert (_of(fleet), _held_back(fleet)) == (before, {"primary", "kiosk"})
        assert other.run("finalise").report["outcome"] == "committed"
    fleet.plan(deploy=deploy, servers='atomicity = "two_phase"')
    assert fleet.deploy("--run-id", "build-9").report["outcome"] == "committed"
    assert fleet.run("finalise").report["outcome"] == "committed"
    assert _held_back(fleet) == set()


@pytest.mark.long
@pytest.mark.parametrize("on_failure", ["halt", pytest.param("rollback", marks=pytest.mark.long)])
def test_what_was_committed_and_came_back_after_it_was_given_up_is_taken_back(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path, on_failure: str
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        deploy = f'expand_contract = false\nsettle_timeout = "2s"\non_failure = "{on_failure}"'
        fleet.plan(deploy=deploy, servers='atomicity = "two_phase"')
        plan = tmp_path / "deploy.toml"
        text = plan.read_text().replace('alias = "kiosk"\n', 'alias = "kiosk"\natomicity = "compensated"\n')
        head, tier, tail = text.rpartition('atomicity = "two_phase"')
        # The last resource: its commit is the decision.
        plan.write_text(head + tier.replace("two_phase", "held_open") + tail)
        before = _of(fleet)
        with proxied(fleet) as (_first, last):
            assert fleet.run("deploy", failpoint="decide.after").exit_code == -9
            fleet.wait_until_alone()
            last.refuse()
            assert fleet.run("recover", "--abort").exit_code == 4
            last.accept()

            recovered = fleet.run("recover")

            assert (recovered.exit_code, recovered.report["outcome"]) == (0, "rolled_back"), recovered.stderr
            assert _of(fleet) == before
