"""A run whose last resource has committed is settled by a deploy of another name: the mark there is its decision."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.dump import dump
from tests.support.postgres_server import PostgresServer
from tests.support.runs import run_words
from tests.support.small_migrations import NOTE
from tests.support.tiers import DEPLOY

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "two_phase"')
        assert fleet.run("deploy", failpoint="journal.decision.before").exit_code == -9
        fleet.wait_until_alone()
        assert len(fleet.prepared()) == 2
        assert "0002_note" in dump(fleet.kiosk, sequences=False)
        yield fleet


def _second(fleet: Fleet, *lines: str) -> None:
    text = (fleet.directory / "deploy.toml").read_text()
    (fleet.directory / "second.toml").write_text(text.replace('name = "small"', "\n".join(['name = "tall"', *lines])))


def _assert_new(fleet: Fleet) -> None:
    assert not fleet.prepared()
    assert {name for name, text in fleet.dumps().items() if "0002_note" in text} == {"primary", "kiosk", LAST}


def test_by_the_journal_that_knows_it_it_is_committed(fleet: Fleet) -> None:
    _second(fleet)

    settled = run_words(fleet.directory, fleet.environment, "recover", "second.toml")

    assert (settled.exit_code, settled.report["outcome"]) == (0, "committed"), settled.stderr
    assert settled.report["deploy"] == "small"
    _assert_new(fleet)
    # Its own deploy has heard of it, and takes it back as one.
    assert fleet.run("recover").report["outcome"] == "nothing_to_do"
    assert fleet.run("rollback").report["outcome"] == "committed"
    assert not [name for name, text in fleet.dumps().items() if "0002_note" in text]


@pytest.mark.long
@pytest.mark.parametrize("words", [(), pytest.param(("--abort",), marks=pytest.mark.long)])
def test_by_another_journal_it_is_left_to_its_own(fleet: Fleet, words: tuple[str, ...]) -> None:
    _second(fleet, 'journal = "sqlite:///other/journal.db"')

    refused = run_words(fleet.directory, fleet.environment, "recover", "second.toml", *words)

    assert refused.exit_code == 4, refused.stderr
    assert "of the deploy small has committed there" in refused.report["error"]["message"]
    assert len(fleet.prepared()) == 2
    assert fleet.run("recover").report["outcome"] == "committed"
    _assert_new(fleet)
