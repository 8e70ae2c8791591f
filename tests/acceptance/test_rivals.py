"""Coordinators that were frozen past their lease, that begin at once, or whose clock jumps: one acts, nothing mixes."""

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.deploys import GATE_WAITS, Fleet
from tests.support.fault_proxy import Fault, Harm
from tests.support.frozen import Frozen, on_servers, without_kiosk
from tests.support.tiers import DEPLOY, TIERS, Releases, dumps_of, proxied

if TYPE_CHECKING:
    from tests.support.runs import Outcome

pytestmark = pytest.mark.timeout(120)


# --- frozen ---------------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("tier", "statement", "harm"),
    [
        pytest.param("held_open", "^ALTER TABLE", Harm.DELAYED, id="held_open-expanding", marks=pytest.mark.long),
        pytest.param("held_open", "^SELECT 1$", Harm.DELAYED, id="held_open-barrier", marks=pytest.mark.long),
        pytest.param("held_open", "^COMMIT$", Harm.DELAYED, id="held_open-decided", marks=pytest.mark.long),
        pytest.param("two_phase", "^PREPARE", Harm.DELAYED, id="two_phase-preparing", marks=pytest.mark.long),
        pytest.param("two_phase", "^PREPARE", Harm.REPLY_DELAYED, id="two_phase-prepared"),
        pytest.param("two_phase", "^COMMIT PREPARED", Harm.DELAYED, id="two_phase-decided", marks=pytest.mark.long),
        pytest.param("compensated", "^ALTER TABLE", Harm.DELAYED, id="compensated-expanding", marks=pytest.mark.long),
        pytest.param("compensated", "^SELECT 1$", Harm.DELAYED, id="compensated-barrier", marks=pytest.mark.long),
    ],
)
def test_a_run_that_was_frozen_past_its_leases_commits_nothing_that_another_did_not_decide(
    releases: Releases, tmp_path: Path, tier: str, statement: str, harm: Harm
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        without_kiosk(fleet)
        frozen = Frozen(fleet)
        others: list[Outcome] = []

        def meanwhile() -> None:
            frozen.freeze()
            others.append(fleet.run("deploy"))
            frozen.go_on()

        # Each look at the database has a transaction of its own, and ends with a COMMIT before anything is held.
        after = "^ALTER TABLE" if statement == "^COMMIT$" else ""
        with fleet.running() as frozen.run:
            fault = first.arm(Fault(statement, harm, after=after, meanwhile=meanwhile))
            outcome = frozen.run.finish()
            fault.wait()

        (other,) = others
        assert other.exit_code == 0, other.stderr
        settled = [line["decision"] for line in other.named("recover.settled")]
        # Where it had decided, it may find everything committed, or not know in time; else it has changed nothing.
        assert outcome.exit_code in ({0, 4, 5} if settled == ["commit"] else {1, 5}), outcome.stderr
        assert not fleet.prepared()
        assert on_servers(dumps_of(fleet)) == on_servers(releases.after(tier)), outcome.stderr
        assert fleet.decisions().count("commit") == 1
        again = fleet.run("deploy")
        assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do"), again.stderr


# --- at once --------------------------------------------------------------------------------------------------------


@contextmanager
def _twin_of(fleet: Fleet, directory: Path) -> Iterator[Fleet]:
    """Yield another plan, with a journal of its own, over the same databases."""
    directory.mkdir()
    (directory / "project").symlink_to(fleet.directory / "project")
    text = (fleet.directory / "deploy.toml").read_text().replace('name = "small"', 'name = "elsewhere"', 1)
    (directory / "deploy.toml").write_text(text)
    twin = Fleet(directory, fleet.first, fleet.last, fleet.settings, fleet.variable)
    twin.databases = fleet.databases
    yield twin
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=() if seed == 0 else pytest.mark.long) for seed in range(50)]
)
def test_of_two_that_begin_about_at_once_one_acts(releases: Releases, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    tier = chance.choice(sorted(TIERS))
    with releases.copy(tier, tmp_path / "plan") as fleet, _twin_of(fleet, tmp_path / "twin") as twin:
        rival = twin if seed % 2 else fleet
        with fleet.running() as one:
            one.wait_until(chance.uniform(0.0, 1.5))
            with rival.running() as other:
                outcomes = [one.finish(), other.finish()]
        results = sorted(outcome.report["outcome"] for outcome in outcomes)
        # Who finds in its turn that all is done meanwhile has nothing to do, or commits nothing.
        assert results[0] == "committed", outcomes
        assert results[1] in {"committed", "locked", "nothing_to_do"}, outcomes
        assert len([each for each in outcomes if any(entry["applied"] for entry in each.report["databases"])]) == 1
        assert not fleet.prepared()
        assert dumps_of(fleet) == releases.after(tier)


# --- clocks ---------------------------------------------------------------------------------------------------------

_LIBRARIES = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
_needs_faketime = pytest.mark.skipif(not _LIBRARIES, reason="libfaketime is not installed (Debian: libfaketime)")


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that says how far the time of day of the programs that are started here is off; not that of servers."""
    file = tmp_path / "clock"
    file.write_text("+0")
    monkeypatch.setenv("LD_PRELOAD", str(_LIBRARIES[0]))
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return file


def _expiry(fleet: Fleet) -> str:
    with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal:
        return str(journal.execute("SELECT expires_at FROM lease").fetchone()[0])


@pytest.mark.long
@_needs_faketime
@pytest.mark.parametrize(
    ("whose", "jump"),
    [("second", "+1d"), ("second", "-1d"), ("first", "+1d"), ("first", "-1d")],
)
def test_a_clock_that_jumps_by_a_day_takes_no_lease_from_anybody(
    releases: Releases, tmp_path: Path, clock: Path, jump: str, whose: str
) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet:
        fleet.plan(deploy=DEPLOY, servers=TIERS["two_phase"].servers, shards=GATE_WAITS)
        with fleet.running() as run:
            run.wait_for("gate.started")
            before = _expiry(fleet)
            clock.write_text(jump)
            # Until its next heartbeat, by its new time.
            with fleet.first.connect() as session:
                while whose == "first" and _expiry(fleet) == before:
                    session.execute("SELECT pg_sleep(0.02)")
            if whose == "first":
                clock.write_text("+0")
            rival = fleet.deploy()
            assert (rival.exit_code, rival.report["outcome"]) == (5, "locked"), rival.stderr
            clock.write_text(jump)
            (fleet.directory / "go").touch()
            outcome = run.finish()
        assert outcome.exit_code == 0, outcome.stderr
        assert not fleet.prepared()
        assert dumps_of(fleet) == releases.after("two_phase")
