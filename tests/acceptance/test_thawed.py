"""Coordinators that were frozen after their decision, and wake up when others have settled it and gone on."""

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.deploys import Fleet
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.frozen import Frozen, on_servers, without_kiosk
from tests.support.runs import Outcome
from tests.support.small_project import migration
from tests.support.tiers import DEPLOY, TIERS, Releases, dumps_of, proxied

pytestmark = pytest.mark.timeout(120)

_COMMIT = {
    "two_phase": "^COMMIT PREPARED",
    "held_open": "^COMMIT$",
    "compensated": r"^DELETE FROM \S*smooth_migrations_jo",
}
_ROLLBACK = ["rollback", "--discard-data"]
_MORE = migration(
    "migrations.AddField('item', 'more', models.CharField(max_length=40, default='no'))", after=[("demo", "0003_kind")]
)
_PATIENCE_S = 60.0
_TIERS = [
    "two_phase",
    pytest.param("held_open", marks=pytest.mark.long),
    pytest.param("compensated", marks=pytest.mark.long),
]


def _patient(fleet: Fleet, *, by_phase: bool = False, shards: str = "") -> None:
    """Let what was decided be tried for longer than the others need meanwhile."""
    plan = fleet.directory / "deploy.toml"
    if by_phase:
        deploy = f'{DEPLOY}\ncommit = "phase"'
        fleet.plan(deploy=deploy, servers=TIERS["two_phase"].servers, shards=shards)
    without_kiosk(fleet)
    text = plan.read_text()
    assert 'settle_timeout = "2s"' in text
    plan.write_text(text.replace('settle_timeout = "2s"', 'settle_timeout = "60s"'))


def _decided(tier: str) -> Fault:
    """Return what befalls the statement that commits `primary` after the decision."""
    # Each look at the database has a transaction of its own, and ends with a COMMIT before anything is held.
    return Fault(_COMMIT[tier], Harm.DELAYED, after="^ALTER TABLE" if tier == "held_open" else "")


def _kill(fleet: Fleet, point: str) -> None:
    killed = fleet.run("deploy", failpoint=point)
    assert killed.exit_code == -9, f"{point} was not reached: {killed.stderr}"
    for process in fleet.processes():
        process.wait(timeout=_PATIENCE_S)
    fleet.wait_until_alone()


def _marked(fleet: Fleet) -> list[str]:
    """Return the runs whose marks stand in `primary`."""
    with fleet.first.connect() as session:
        return [run for (run,) in session.execute("SELECT run_id FROM smooth_migrations_marker").fetchall()]


def _thawed(
    fleet: Fleet, proxy: FaultProxy, fault: Fault, others: Sequence[Sequence[str]], *words: str
) -> tuple[Outcome, dict[str, str]]:
    """Freeze a command at a statement, run others meanwhile, and return its outcome and what they have left."""
    frozen, done, left = Frozen(fleet), list[Outcome](), dict[str, str]()

    def meanwhile() -> None:
        frozen.freeze()
        try:
            done.extend(fleet.run(command, *options) for command, *options in others)
            left.update(on_servers(dumps_of(fleet)))
        finally:
            frozen.go_on()

    fault.meanwhile = meanwhile
    command, *options = words
    with fleet.running(*options, command=command) as frozen.run:
        proxy.arm(fault)
        outcome = frozen.run.finish()
        fault.wait()
    assert [each.exit_code for each in done] == [0] * len(others), "".join(each.stderr for each in done)
    return outcome, left


def _assert_untouched(fleet: Fleet, outcome: Outcome, left: dict[str, str]) -> None:
    assert on_servers(dumps_of(fleet)) == left, outcome.stderr
    assert not fleet.prepared()
    again = fleet.run("recover")
    assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do"), again.stderr
    assert on_servers(dumps_of(fleet)) == left


def _assert_in_doubt(fleet: Fleet, outcome: Outcome, left: dict[str, str]) -> None:
    _assert_untouched(fleet, outcome, left)
    assert (outcome.exit_code, outcome.report["outcome"]) == (4, "needs_operator"), outcome.stderr
    assert outcome.outcomes["primary"] == "in_doubt"
    assert outcome.report["settle_with"] == ["smooth-orchestrate recover deploy.toml"]


@pytest.mark.long
@pytest.mark.parametrize("tier", _TIERS)
def test_a_deploy_that_was_taken_back_meanwhile_moves_nothing(releases: Releases, tmp_path: Path, tier: str) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet)
        before = on_servers(dumps_of(fleet))

        outcome, left = _thawed(fleet, first, _decided(tier), [["recover"], _ROLLBACK], "deploy")

        assert left == before
        _assert_in_doubt(fleet, outcome, left)
        assert outcome.named("lease.lost")
        assert {each["error"]["type"] for each in outcome.report["databases"] if each["error"]} <= {
            "lease_lost",
            "LeaseLost",
        }


@pytest.mark.long
@pytest.mark.parametrize("tier", _TIERS)
def test_a_rollback_whose_run_was_deployed_again_meanwhile_moves_nothing(
    releases: Releases, tmp_path: Path, tier: str
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet)
        assert fleet.deploy().exit_code == 0

        outcome, left = _thawed(fleet, first, _decided(tier), [["recover"], ["deploy"]], *_ROLLBACK)

        assert left == on_servers(releases.after(tier))
        _assert_untouched(fleet, outcome, left)
        # It was committed: its marks are there.
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert outcome.named("lease.lost")


@pytest.mark.long
@pytest.mark.parametrize(
    ("tier", "statement"),
    [
        pytest.param("two_phase", _COMMIT["two_phase"], marks=pytest.mark.long),
        ("held_open", "^ALTER TABLE"),
        pytest.param("held_open", r"^\s*UPDATE .*lease.* SET epoch", id="held_open-turn", marks=pytest.mark.long),
    ],
)
def test_a_recovery_that_was_overtaken_moves_nothing(
    releases: Releases, tmp_path: Path, tier: str, statement: str
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet)
        before = on_servers(dumps_of(fleet))
        _kill(fleet, "journal.decision.after")
        # It fences first what was held open.
        nth = 2 if "lease" in statement else 1

        fault = Fault(statement, Harm.DELAYED, nth=nth)
        outcome, left = _thawed(fleet, first, fault, [["recover"], _ROLLBACK], "recover")

        assert left == before
        _assert_in_doubt(fleet, outcome, left)


@pytest.mark.long
def test_a_phase_that_was_given_up_meanwhile_is_not_run_again(releases: Releases, tmp_path: Path) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet, by_phase=True)
        before = on_servers(dumps_of(fleet))

        outcome, left = _thawed(fleet, first, _decided("two_phase"), [["recover"]], "deploy")

        assert left == before
        _assert_in_doubt(fleet, outcome, left)


@pytest.mark.long
def test_what_the_same_run_has_committed_meanwhile_is_not_taken_back(releases: Releases, tmp_path: Path) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet, by_phase=True, shards='gate = ["sh", "-c", "mv closed open || exit 0; exit 1"]')
        (fleet.directory / "closed").touch()
        # The second turn, in which the phase that has committed is taken back.
        fault = Fault(r"^\s*UPDATE .*lease.* SET epoch", Harm.DELAYED, nth=2)
        others = [["recover"], ["deploy", "--run-id", "build-7"]]

        outcome, left = _thawed(fleet, first, fault, others, "deploy", "--run-id", "build-7")

        assert left == on_servers(releases.after("two_phase"))
        _assert_untouched(fleet, outcome, left)
        assert (outcome.exit_code, outcome.report["outcome"]) == (5, "locked"), outcome.stderr
        assert outcome.outcomes["primary"] == "in_doubt"
        assert "build-7" in _marked(fleet)


@pytest.mark.long
def test_the_mark_of_the_same_run_that_has_committed_meanwhile_stays(releases: Releases, tmp_path: Path) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet)
        assert fleet.deploy("--run-id", "build-7").exit_code == 0
        shutil.rmtree(fleet.directory / ".smooth")
        (fleet.directory / "project/demo/migrations/0004_more.py").write_text(_MORE)
        # The mark of the earlier use is removed in a turn.
        fault = Fault(r"^\s*UPDATE .*lease.* SET epoch", Harm.DELAYED)
        words = ["deploy", "--run-id", "build-7"]

        outcome, left = _thawed(fleet, first, fault, [words], *words)

        assert "0004_more" in left["primary"]
        _assert_untouched(fleet, outcome, left)
        assert (outcome.exit_code, outcome.report["outcome"]) == (5, "locked"), outcome.stderr
        assert "build-7" in _marked(fleet)


@pytest.mark.long
def test_what_is_committed_late_by_a_phase_that_is_given_up_is_taken_back(releases: Releases, tmp_path: Path) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        _patient(fleet, by_phase=True)
        before = on_servers(dumps_of(fleet))
        frozen, rolls_back, recovered = Frozen(fleet), threading.Event(), list[Outcome]()
        recovery = threading.Thread(target=lambda: recovered.append(fleet.run("recover")))

        def until_it_is_rolled_back() -> None:
            frozen.freeze()
            recovery.start()
            rolls_back.wait(_PATIENCE_S)

        def until_it_is_committed() -> None:
            rolls_back.set()
            with fleet.first.connect() as session:
                while fleet.prepared():
                    session.execute("SELECT pg_sleep(0.02)")

        with fleet.running() as frozen.run:
            late = first.arm(Fault(_COMMIT["two_phase"], Harm.DELAYED, meanwhile=until_it_is_rolled_back))
            early = first.arm(Fault("^ROLLBACK PREPARED", Harm.DELAYED, meanwhile=until_it_is_committed))
            late.wait()
            early.wait()
            recovery.join()
            left = on_servers(dumps_of(fleet))
            frozen.go_on()
            outcome = frozen.run.finish()

        assert (recovered[0].exit_code, recovered[0].report["outcome"]) == (0, "rolled_back"), recovered[0].stderr
        assert left == before
        _assert_untouched(fleet, outcome, before)
