"""Connections cut around single statements: all databases are old or all new, and the same deploy then succeeds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from tests.support.deploys import Fleet, Outcome
from tests.support.fault_proxy import Fault, Harm
from tests.support.postgres_server import PostgresServer
from tests.support.tiers import DEPLOY, TIERS, Releases, dumps_of, proxied, releases_on

pytestmark = pytest.mark.timeout(120)

_FAILS = 'gate = ["false"]'


@pytest.fixture(scope="module")
def releases(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Releases]:
    with releases_on(tmp_path_factory.mktemp("releases"), pg_server, second_pg_server) as found:
        yield found


def _assert_settled(releases: Releases, tier: str, fleet: Fleet, before: dict[str, str], outcome: Outcome) -> None:
    """Assert that the databases are as the exit code says, or as the printed command leaves them; deploy once more."""
    if outcome.exit_code == 4:
        outcome = fleet.run_printed(outcome)
        is_new = fleet.decisions()[-1:] == ["commit"]
    else:
        assert outcome.exit_code in {0, 1}, outcome.stderr
        is_new = outcome.exit_code == 0
        assert fleet.decisions() == (["commit"] if is_new else ["abort"])
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
_SHORT = {("two_phase", Harm.REPLY_LOST), ("two_phase", Harm.REQUEST_LATE), ("held_open", Harm.REPLY_LOST)}


def _cases(*short: tuple[str, Harm]) -> list[ParameterSet]:
    return [
        pytest.param(tier, harm, marks=() if (tier, harm) in short else pytest.mark.long, id=f"{tier}-{harm.name}")
        for tier in TIERS
        for harm in _LOST
    ]


@pytest.mark.parametrize(("tier", "harm"), _cases(("two_phase", Harm.REPLY_LOST), ("two_phase", Harm.REQUEST_LATE)))
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


@pytest.mark.parametrize(("tier", "harm"), _cases(("two_phase", Harm.REPLY_LOST), ("held_open", Harm.REPLY_LOST)))
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
