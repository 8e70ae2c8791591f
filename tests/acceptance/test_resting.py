"""A run that waits for its decision while transactions of its stand prepared is at work, and not dead."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.support.deploys import GATE_WAITS, Fleet
from tests.support.fault_proxy import Fault, Harm
from tests.support.leases import until
from tests.support.tiers import DEPLOY, TIERS, Releases, dumps_of, proxied

if TYPE_CHECKING:
    from tests.support.runs import Outcome

pytestmark = pytest.mark.timeout(180)

_PRIMARY_ALONE = """\
version = 1
[deploy]
name = "elsewhere"
expand_contract = false
[projects.one]
path = "project"
settings = "small_settings"
env = { SMALL_DATABASES = "${SMALL_DATABASES}" }
[databases.primary]
project = "one"
alias = "default"
atomicity = "two_phase"
"""
_EXPIRES = "SELECT expires_at FROM smooth_migrations_lease"


@contextmanager
def _waiting(releases: Releases, directory: Path) -> Iterator[Fleet]:
    """Yield a fleet with patience, and with a plan for `primary` alone, of another name and journal, in `twin`."""
    with releases.copy("two_phase", directory) as fleet:
        fleet.plan(deploy=f'{DEPLOY}\nmax_lock_hold = "5min"', servers=TIERS["two_phase"].servers)
        yield fleet


def _twin_of(fleet: Fleet, directory: Path) -> Fleet:
    """Return another plan, with a journal of its own, over `primary` alone."""
    directory.mkdir()
    (directory / "project").symlink_to(fleet.directory / "project")
    (directory / "deploy.toml").write_text(_PRIMARY_ALONE)
    twin = Fleet(directory, fleet.first, fleet.last, fleet.settings, fleet.variable)
    twin.databases = {**fleet.databases}
    return twin


def _outlast_the_lease(fleet: Fleet) -> None:
    """Wait until the lease of `primary`, whose transaction stands prepared, would have expired."""
    until(lambda: bool(fleet.first.server.prepared(fleet.first.name)))
    with fleet.first.connect() as session:
        (expires_at,) = session.execute(_EXPIRES).fetchone() or (None,)
        until(lambda: session.execute("SELECT clock_timestamp() > %s", [expires_at]).fetchone() == (True,))


@pytest.mark.long
def test_a_run_that_waits_for_its_decision_is_not_taken_for_dead(releases: Releases, tmp_path: Path) -> None:
    with _waiting(releases, tmp_path / "plan") as fleet, proxied(fleet) as (_first, last):
        twin = _twin_of(fleet, tmp_path / "twin")
        others: list[Outcome] = []
        stood: list[int] = []

        def meanwhile() -> None:
            _outlast_the_lease(fleet)
            for command, *options in (["deploy"], ["recover"], ["recover", "--abort"]):
                others.append(twin.run(command, *options))
                stood.append(len(fleet.first.server.prepared(fleet.first.name)))

        with fleet.running() as run:
            fault = last.arm(Fault("^PREPARE", Harm.DELAYED, meanwhile=meanwhile))
            outcome = run.finish()
            fault.wait()

        assert [(each.exit_code, each.report["outcome"]) for each in others] == [(5, "locked")] * 3, others
        holder = f"pid {run.process.pid}, since "
        assert all(holder in each.report["error"]["message"] for each in others), others
        assert stood == [1, 1, 1]
        assert outcome.exit_code == 0, outcome.stderr
        assert not fleet.prepared()
        assert dumps_of(fleet) == releases.after("two_phase")


@pytest.mark.long
def test_a_coordinator_that_is_frozen_while_it_waits_is_taken_over(releases: Releases, tmp_path: Path) -> None:
    with _waiting(releases, tmp_path / "plan") as fleet, proxied(fleet) as (_first, last):
        twin = _twin_of(fleet, tmp_path / "twin")
        before = dumps_of(fleet)
        others: list[Outcome] = []

        def meanwhile() -> None:
            until(lambda: bool(fleet.first.server.prepared(fleet.first.name)))
            coordinator = psutil.Process(run.process.pid)
            coordinator.suspend()
            _outlast_the_lease(fleet)
            others.append(twin.run("recover", "--abort"))
            coordinator.resume()

        with fleet.running() as run:
            fault = last.arm(Fault("^PREPARE", Harm.DELAYED, meanwhile=meanwhile))
            outcome = run.finish()
            fault.wait()

        assert [(each.exit_code, each.report["outcome"]) for each in others] == [(0, "rolled_back")], others
        # Where it had decided before it looked, its transaction was run forward again.
        assert outcome.exit_code in {0, 1}, outcome.stderr
        assert not fleet.prepared()
        assert dumps_of(fleet) == (before if outcome.exit_code else releases.after("two_phase"))


@pytest.mark.long
def test_a_second_run_of_the_same_id_ends_no_session_of_the_first(releases: Releases, tmp_path: Path) -> None:
    with _waiting(releases, tmp_path / "plan") as fleet:
        fleet.plan(deploy=DEPLOY, servers=TIERS["two_phase"].servers, shards=GATE_WAITS)
        twin = _twin_of(fleet, tmp_path / "twin")
        with fleet.running("--run-id", "same") as run:
            run.wait_for("gate.started")
            other = twin.run("deploy", "--run-id", "same")
            (fleet.directory / "go").touch()
            outcome = run.finish()

        assert (other.exit_code, other.report["outcome"]) == (5, "locked"), other.stderr
        assert outcome.exit_code == 0, outcome.stderr
        assert dumps_of(fleet) == releases.after("two_phase")
