"""A server that crashes, and comes back or not, or cuts its connections: at each stage of a deploy, in each tier."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.deploys import Fleet
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.tiers import DEPLOY, TIERS, Releases, dumps_of, proxied, releases_on

pytestmark = pytest.mark.timeout(120)

_BARRIERS = {"two_phase": "^PREPARE TRANSACTION", "held_open": "^SELECT 1$", "compensated": "^SELECT 1$"}
_COMMITS = {"two_phase": "^COMMIT PREPARED", "held_open": "^COMMIT$", "compensated": "^COMMIT$"}


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server that no other test depends on. By its default a commit does not wait for the disk."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture(scope="module")
def releases(
    server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Releases]:
    with releases_on(tmp_path_factory.mktemp("releases"), server, second_pg_server) as found:
        yield found


def _cut(server: PostgresServer) -> None:
    with server.connect() as session:
        session.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )


_MISHAPS: dict[str, Callable[[PostgresServer], None]] = {
    "restarts": lambda server: server.restart("immediate"),
    "stays-away": lambda server: server.stop("immediate"),
    "cuts": _cut,
}


def _arm(proxy: FaultProxy, tier: str, stage: str, mishap: Callable[[], None]) -> Fault:
    """Let a mishap happen to the server of `primary` when that is at a stage."""
    if stage == "expanding":
        return proxy.arm(Fault("^ALTER TABLE", Harm.DELAYED, nth=2, meanwhile=mishap))
    if stage == "preparing":
        return proxy.arm(Fault(_BARRIERS[tier], Harm.REPLY_LOST, meanwhile=mishap))
    # The decision stands when the first commit comes.
    fault = Fault(_COMMITS[tier], {"decided": Harm.DELAYED, "committing": Harm.REPLY_LOST}[stage], meanwhile=mishap)
    proxy.arm(Fault(_BARRIERS[tier], Harm.DELAYED, meanwhile=lambda: proxy.arm(fault)))
    return fault


def _exit_codes(tier: str, stage: str, mishap: str) -> set[int]:
    if stage in {"decided", "committing"}:
        return {4} if mishap == "stays-away" else {0}
    if tier == "compensated" or stage == "expanding":
        # Whether a migration has committed something is asked at once: a server that is still starting cannot tell.
        return {"stays-away": {4}, "restarts": {1, 4}, "cuts": {1}}[mishap]
    # What is open ends with its server; of what is prepared nobody can tell before that is back.
    return {4} if (tier, mishap) == ("two_phase", "stays-away") else {1}


_SHORT = {("held_open", "decided", "cuts")}


@pytest.mark.parametrize(
    ("tier", "stage", "mishap"),
    [
        pytest.param(*case, id="-".join(case), marks=() if case in _SHORT else pytest.mark.long)
        for case in itertools.product(TIERS, ("expanding", "preparing", "decided", "committing"), _MISHAPS)
    ],
)
def test_a_mishap_of_a_server_leaves_all_databases_old_or_all_new(
    releases: Releases, server: PostgresServer, tmp_path: Path, tier: str, stage: str, mishap: str
) -> None:
    with releases.copy(tier, tmp_path / "plan") as fleet, proxied(fleet) as (first, _last):
        if mishap != "stays-away":
            fleet.plan(deploy=DEPLOY.replace('"2s"', '"20s"'), servers=TIERS[tier].servers)
        before = dumps_of(fleet)
        decisions: list[list[str]] = []

        def happen() -> None:
            decisions.append(fleet.decisions())
            _MISHAPS[mishap](server)

        fault = _arm(first, tier, stage, happen)
        outcome = fleet.run("deploy")
        fault.wait()
        is_decided = stage in {"decided", "committing"}
        assert decisions == [["commit"] if is_decided else []]
        if mishap == "stays-away":
            server.start()
        assert outcome.exit_code in _exit_codes(tier, stage, mishap), outcome.stderr
        if outcome.exit_code == 4:
            assert outcome.outcomes["primary"] == "in_doubt"
            fleet.run_printed(outcome)
        _assert_all(fleet, releases.after(tier) if is_decided else before)
        again = fleet.run("deploy")
        assert again.exit_code == 0, again.stderr
        _assert_all(fleet, releases.after(tier))


def _assert_all(fleet: Fleet, expected: dict[str, str]) -> None:
    assert not fleet.prepared()
    assert dumps_of(fleet) == expected
