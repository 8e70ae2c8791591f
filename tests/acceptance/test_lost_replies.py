"""Connections cut around single statements: all databases are old or all new, and the same deploy then succeeds."""

import itertools
import threading
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support.deploys import GATE_WAITS, Fleet
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_database import PostgresDatabase
from tests.support.runs import Outcome
from tests.support.tiers import DEPLOY, TIERS, Releases, decided_by_journal, dumps_of, proxied

pytestmark = pytest.mark.timeout(120)

_FAILS = 'gate = ["false"]'


def _assert_settled(releases: Releases, tier: str, fleet: Fleet, before: dict[str, str], outcome: Outcome) -> None:
    """Assert that the databases are as the exit code says, or as the printed command leaves them; deploy once more."""
    if outcome.exit_code == 4:
        outcome = fleet.run_printed(outcome)
        is_new = fleet.decisions()[-1:] == ["commit"]
    else:
        assert outcome.exit_code in {0, 1, 3}, outcome.stderr
        is_new = outcome.exit_code == 0
        assert fleet.decisions() == {0: ["commit"], 1: ["abort"], 3: []}[outcome.exit_code]
    assert not fleet.prepared()
    assert dumps_of(fleet) == (releases.after(tier) if is_new else before), outcome.stderr
    fleet.plan(deploy=DEPLOY, servers=TIERS[tier].servers)
    again = fleet.run("deploy")
    assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do" if is_new else "committed"), again.stderr
    assert dumps_of(fleet) == releases.after(tier)


_LOST = (Harm.REQUEST_LOST, Harm.REPLY_LOST, Harm.REQUEST_LATE, Harm.HALF_CLOSED)
# Before the decision, and the one about the database that is struck.
_PREPARES = {"two_phase": "^PREPARE TRANSACTION", "held_open": "^SELECT 1$", "compensated": "^SELECT 1$"}
_COMMITS = {"two_phase": "^COMMIT PREPARED", "held_open": "^COMMIT$", "compensated": "^COMMIT$"}


def _cases(*short: tuple[str, Harm]) -> list[ParameterSet]:
    return [
        pytest.param(tier, harm, marks=() if (tier, harm) in short else pytest.mark.long, id=f"{tier}-{harm.name}")
        for tier in TIERS
        for harm in _LOST
    ]


@pytest.mark.parametrize(("tier", "harm"), _cases())
def test_a_connection_cut_while_a_database_prepares_changes_none(
    releases: Releases, tmp_path: Path, tier: str, harm: Harm
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        before = dumps_of(fleet)
        fault = first.arm(Fault(_PREPARES[tier], harm))
        outcome = fleet.run("deploy")
        fault.wait()
        assert outcome.exit_code == 1, outcome.stderr
        _assert_settled(releases, tier, fleet, before, outcome)


@pytest.mark.parametrize(("tier", "harm"), _cases(("two_phase", Harm.REPLY_LOST)))
def test_a_connection_cut_while_a_database_commits_changes_all(
    releases: Releases, tmp_path: Path, tier: str, harm: Harm
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        before = dumps_of(fleet)
        decided: list[list[str]] = []
        fault = Fault(_COMMITS[tier], harm, meanwhile=lambda: decided.append(fleet.decisions()))
        barrier = Fault(_PREPARES[tier], Harm.DELAYED, meanwhile=lambda: first.arm(fault))
        first.arm(barrier)
        outcome = fleet.run("deploy")
        fault.wait()
        assert decided == [["commit"]]
        assert outcome.exit_code == 0, outcome.stderr
        _assert_settled(releases, tier, fleet, before, outcome)


_BY_ITSELF = {"operation": "^ALTER TABLE", "migration": "^INSERT INTO .*django_migrations"}


@pytest.mark.parametrize("harm", _LOST, ids=lambda harm: harm.name)
@pytest.mark.parametrize("what", _BY_ITSELF)
@pytest.mark.long
def test_a_connection_cut_while_a_part_of_a_migration_commits_changes_none(
    releases: Releases, tmp_path: Path, what: str, harm: Harm
) -> None:
    with releases.copy("compensated", tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        before = dumps_of(fleet)
        fault = first.arm(Fault("^COMMIT$", harm, after=_BY_ITSELF[what]))
        outcome = fleet.run("deploy")
        fault.wait()
        assert outcome.exit_code == 1, outcome.stderr
        _assert_settled(releases, "compensated", fleet, before, outcome)


@pytest.mark.parametrize("harm", [Harm.REQUEST_LOST, Harm.REPLY_LOST, Harm.HALF_CLOSED], ids=lambda harm: harm.name)
@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.long
def test_a_connection_cut_while_a_database_rolls_back_changes_none(
    releases: Releases, tmp_path: Path, tier: str, harm: Harm
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, last):
        before = dumps_of(fleet)
        rollback = Fault("^ROLLBACK", harm)
        if tier == "two_phase":
            # Prepared already, when another one cannot be.
            prepared = Fault(_PREPARES[tier], Harm.REPLY_DELAYED, meanwhile=lambda: first.arm(rollback))
            last.arm(Fault(_PREPARES[tier], Harm.REQUEST_LOST, meanwhile=first.arm(prepared).wait))
        else:
            fleet.plan(deploy=DEPLOY, servers=TIERS[tier].servers, shards=_FAILS)
            marker = r"^INSERT INTO \S*smooth_migrations_marker"
            last.arm(Fault(marker, Harm.DELAYED, meanwhile=lambda: first.arm(rollback)))
        outcome = fleet.run("deploy")
        rollback.wait()
        assert outcome.exit_code == 1, outcome.stderr
        _assert_settled(releases, tier, fleet, before, outcome)


@pytest.mark.long
def test_a_prepare_that_reaches_its_server_after_the_roll_back_prepares_nothing(
    releases: Releases, tmp_path: Path
) -> None:
    with releases.copy("two_phase", tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        before = dumps_of(fleet)
        rolled_back = first.arm(Fault("^ROLLBACK PREPARED", Harm.REPLY_DELAYED))
        late = first.arm(Fault("^PREPARE TRANSACTION", Harm.REQUEST_LATE, meanwhile=rolled_back.wait))
        outcome = fleet.run("deploy")
        assert late.is_over()
        assert outcome.exit_code == 1, outcome.stderr
        _assert_settled(releases, "two_phase", fleet, before, outcome)


@pytest.mark.parametrize("tier", ["held_open", "compensated"])
@pytest.mark.long
def test_a_commit_that_reaches_its_server_after_the_run_has_ended_changes_nothing_any_more(
    releases: Releases, tmp_path: Path, tier: str
) -> None:
    has_ended = threading.Event()
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        before = dumps_of(fleet)
        late = Fault("^COMMIT$", Harm.REQUEST_LATE, meanwhile=has_ended.wait)
        first.arm(Fault("^SELECT 1$", Harm.DELAYED, meanwhile=lambda: first.arm(late)))
        outcome = fleet.run("deploy")
        has_ended.set()
        assert late.is_over()
        assert outcome.exit_code == 0, outcome.stderr
        _assert_settled(releases, tier, fleet, before, outcome)


def _journal_in(fleet: Fleet, tier: str, database: PostgresDatabase, proxy: FaultProxy) -> None:
    """Let the fleet's journal be in a database that is reached through a proxy."""
    url = f"postgresql://postgres@127.0.0.1:{proxy.port}/{database.name}"
    fleet.plan(deploy=f'{DEPLOY}\njournal = "{url}"', servers=TIERS[tier].servers)
    decided_by_journal(fleet)


def _decisions_in(database: PostgresDatabase) -> list[str]:
    with database.connect() as session:
        rows = session.execute(
            "SELECT data->>'decision' FROM smooth_journal WHERE kind = 'decision' ORDER BY seq"
        ).fetchall()
    return [row[0] for row in rows]


_DECISION = r"INSERT INTO smooth_journal \(.*decision.*commit"


@pytest.mark.long
@pytest.mark.parametrize(
    ("tier", "statement", "harm", "stays_away"),
    [
        pytest.param(*case, stays_away, id=f"{'-'.join(map(str, case))}-{'away' if stays_away else 'back'}")
        for case in itertools.product(TIERS, ("insert", "commit"), _LOST)
        for stays_away in (False, True)
    ],
)
def test_a_decision_whose_journal_gives_no_answer_is_made_once_or_left_to_recover(
    releases: Releases,
    pg_database: PostgresDatabase,
    tmp_path: Path,
    tier: str,
    statement: str,
    harm: Harm,
    *,
    stays_away: bool,
) -> None:
    with (
        releases.copy(tier, tmp_path / "plan") as fleet,
        FaultProxy(pg_database.server.port) as proxy,
    ):
        _journal_in(fleet, tier, pg_database, proxy)
        before = dumps_of(fleet)
        meanwhile = proxy.refuse if stays_away else lambda: None
        if statement == "insert":
            fault = proxy.arm(Fault(_DECISION, harm, meanwhile=meanwhile))
        else:
            fault = Fault("^COMMIT", harm, meanwhile=meanwhile)
            proxy.arm(Fault(_DECISION, Harm.DELAYED, meanwhile=lambda: proxy.arm(fault)))
        outcome = fleet.run("deploy")
        fault.wait()
        assert outcome.exit_code == (4 if stays_away else 0), outcome.stderr
        if stays_away:
            assert outcome.report["error"]["type"] == "journal_unsure"
            assert "in_doubt" in outcome.outcomes.values()
            proxy.accept()
            fleet.run_printed(outcome)
        is_new = _decisions_in(pg_database)[-1:] == ["commit"]
        assert is_new or stays_away
        assert _decisions_in(pg_database).count("commit") == is_new
        assert not fleet.prepared()
        assert dumps_of(fleet) == (releases.after(tier) if is_new else before)
        assert fleet.run("deploy").exit_code == 0
        assert dumps_of(fleet) == releases.after(tier)


_RENEWALS = {"database": "SET heartbeat_at", "journal": "UPDATE smooth_journal_lease SET expires_at"}


@pytest.mark.parametrize("harm", [*_LOST, Harm.DELAYED], ids=lambda harm: harm.name)
@pytest.mark.parametrize("kept_in", _RENEWALS)
@pytest.mark.long
def test_a_renewal_of_a_lease_that_is_lost_on_its_way_is_made_up_for(
    releases: Releases, pg_database: PostgresDatabase, tmp_path: Path, kept_in: str, harm: Harm
) -> None:
    with (
        releases.copy("two_phase", tmp_path / "plan") as fleet,
        proxied(fleet) as (first, _last),
        FaultProxy(pg_database.server.port) as journal,
    ):
        url = f"postgresql://postgres@127.0.0.1:{journal.port}/{pg_database.name}"
        fleet.plan(deploy=f'{DEPLOY}\njournal = "{url}"', servers=TIERS["two_phase"].servers, shards=GATE_WAITS)
        proxy = {"database": first, "journal": journal}[kept_in]
        struck = proxy.arm(Fault(_RENEWALS[kept_in], harm))
        next_one = proxy.arm(Fault(_RENEWALS[kept_in], Harm.REPLY_DELAYED, nth=2))
        with fleet.running() as run:
            struck.wait()
            next_one.wait()
            (fleet.directory / "go").touch()
            outcome = run.finish()
        assert outcome.exit_code == 0, outcome.stderr
        assert outcome.named("lease.lost") == []
        assert dumps_of(fleet) == releases.after("two_phase")


# From the first statement after the inspection to the last one.
_STATEMENTS = {"two_phase": (26, 72), "held_open": (26, 72), "compensated": (26, 130)}


@pytest.mark.parametrize(
    ("tier", "way", "number"),
    [
        pytest.param(tier, way, number, id=f"{tier}-{way}-{number}")
        for tier, (begin, end) in _STATEMENTS.items()
        for way, step in (("forward", 1 if tier == "compensated" else 2), ("back", 4))
        for number in range(begin, end, step)
    ],
)
@pytest.mark.long
def test_a_connection_cut_at_any_statement_leaves_all_databases_old_or_all_new(
    releases: Releases, tmp_path: Path, tier: str, way: str, number: int
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        if way == "back":
            fleet.plan(deploy=DEPLOY, servers=TIERS[tier].servers, shards=_FAILS)
        before = dumps_of(fleet)
        first.arm(Fault(".", _LOST[number // 2 % len(_LOST)], nth=number))
        outcome = fleet.run("deploy")
        first.disarm()
        _assert_settled(releases, tier, fleet, before, outcome)
