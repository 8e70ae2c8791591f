"""A SQLite file that is not there, be it not mounted or not made yet: nobody takes it for one that shows nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY, dumps_of

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "two_phase"')
        yield fleet


def _kill(fleet: Fleet, point: str, *options: str) -> None:
    assert fleet.run("deploy", *options, failpoint=point).exit_code == -9
    for process in fleet.processes():
        process.wait(timeout=20)
    fleet.wait_until_alone()


def _files(fleet: Fleet) -> list[Path]:
    return [*fleet.directory.glob("kiosk.sqlite3*")]


@pytest.mark.long
def test_what_may_have_decided_is_waited_for_and_not_made_anew(fleet: Fleet, tmp_path: Path) -> None:
    _kill(fleet, "journal.decision.before")
    gids = fleet.prepared()
    assert len(gids) == 2
    away = tmp_path / "away"
    away.mkdir()
    for file in _files(fleet):
        file.rename(away / file.name)

    for command in ("recover", "deploy"):
        asked = fleet.run(command)
        assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
        assert asked.outcomes == {"primary": "in_doubt", "kiosk": "in_doubt", LAST: "in_doubt"}
        assert asked.report["error"]["message"] == "the file of kiosk is not there"
    assert (_files(fleet), fleet.prepared()) == ([], gids)

    for file in away.iterdir():
        file.rename(fleet.directory / file.name)
    assert fleet.run_printed(asked).report["outcome"] == "committed"
    assert all("0002_note" in text for text in dumps_of(fleet).values())
    assert not fleet.prepared()


@pytest.mark.long
def test_one_that_a_first_deploy_has_not_come_to_make_is_no_doubt(fleet: Fleet) -> None:
    for file in _files(fleet):
        file.unlink()
    _kill(fleet, "journal.intent.before", "--run-id", "build-7")

    settled = fleet.run("recover")

    assert (settled.exit_code, settled.report["outcome"], _files(fleet)) == (0, "rolled_back", []), settled.stderr
    assert fleet.deploy("--run-id", "build-7").exit_code == 0
    assert all("0002_note" in text for text in dumps_of(fleet).values())
