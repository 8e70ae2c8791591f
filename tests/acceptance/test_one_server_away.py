"""A run that was decided, and one server that does not answer: every other database is settled all the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY, decided_by_journal, dumps_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server that no other test depends on."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture
def fleet(server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "two_phase"')
        decided_by_journal(fleet)
        yield fleet


def _kill(fleet: Fleet, command: str, point: str) -> None:
    assert fleet.run(command, failpoint=point).exit_code == -9
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


@contextmanager
def _away(server: PostgresServer) -> Iterator[None]:
    server.stop("immediate")
    try:
        yield
    finally:
        server.start()


def _last_gids(fleet: Fleet) -> list[str]:
    return fleet.last.server.prepared(fleet.last.name)


@pytest.mark.long
@pytest.mark.parametrize("decision", ["commit", pytest.param("abort", marks=pytest.mark.long)])
def test_the_others_are_settled_and_the_one_that_is_away_is_named(
    fleet: Fleet, server: PostgresServer, decision: str
) -> None:
    before = dumps_of(fleet)
    _kill(fleet, "deploy", "journal.decision.after" if decision == "commit" else "journal.decision.before")
    if decision == "abort":
        _kill(fleet, "recover", "journal.decision.after")
    assert fleet.decisions() == ["commit", decision]
    assert len(_last_gids(fleet)) == 1
    settled = "committed" if decision == "commit" else "rolled_back"

    with _away(server):
        away = fleet.run("recover")

    assert (away.exit_code, away.report["outcome"]) == (4, "needs_operator"), away.stderr
    assert away.outcomes == {"primary": "in_doubt", "kiosk": settled, LAST: settled}
    assert away.report["error"]["database"] == "primary"
    assert away.report["settle_with"] == ["smooth-orchestrate recover deploy.toml"]
    assert _last_gids(fleet) == []
    assert fleet.run_printed(away).report["outcome"] == settled
    assert not fleet.prepared()
    found = dumps_of(fleet)
    assert all("note" in text for text in found.values()) if decision == "commit" else found == before


@pytest.mark.long
def test_without_a_decision_nothing_is_settled_before_every_database_was_seen(
    fleet: Fleet, server: PostgresServer
) -> None:
    before = dumps_of(fleet)
    _kill(fleet, "deploy", "journal.decision.before")
    gids = _last_gids(fleet)

    with _away(server):
        away = fleet.run("recover")

    assert (away.exit_code, away.report["error"]["database"]) == (4, "primary"), away.stderr
    assert _last_gids(fleet) == gids != []
    assert fleet.run_printed(away).report["outcome"] == "rolled_back"
    assert dumps_of(fleet) == before


@pytest.mark.long
def test_without_a_decision_an_operator_decides_about_those_that_are_seen(fleet: Fleet, server: PostgresServer) -> None:
    before = dumps_of(fleet)
    _kill(fleet, "deploy", "journal.decision.before")

    with _away(server):
        away = fleet.run("recover", "--abort")

    assert (away.exit_code, away.report["error"]["database"]) == (4, "primary"), away.stderr
    assert _last_gids(fleet) == []
    assert fleet.run("recover").report["outcome"] == "rolled_back"
    assert dumps_of(fleet) == before


@pytest.mark.long
def test_a_database_that_is_gone_for_good_is_given_up_where_an_operator_says_so(fleet: Fleet) -> None:
    _kill(fleet, "deploy", "journal.decision.before")
    plan = fleet.directory / "deploy.toml"
    kept, _, rest = plan.read_text().partition("[databases.shards]")
    phases = rest[rest.index("[[phases]]") :].partition('[[phases]]\nname = "fleet"')[0]
    plan.write_text(kept + phases)

    told = fleet.run("recover")
    assert (told.exit_code, told.report["error"]["message"]) == (4, f"{LAST} is not in this plan"), told.stderr
    settled = fleet.run("recover", "--abort")

    assert (settled.exit_code, settled.report["outcome"]) == (0, "rolled_back"), settled.stderr
    assert [error["message"] for error in settled.report["errors"]] == [f"{LAST} is not in this plan"]
    assert [gid for gid in fleet.prepared() if ":primary:" in gid] == []
    assert fleet.run("deploy").exit_code == 0
