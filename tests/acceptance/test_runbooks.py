"""Each runbook is followed in the situation that it is for, made on real servers, and shows what is printed."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.deploys import GATE_WAITS, Fleet, small_fleet
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runbooks import DONE, OVER, SEEN, following
from tests.support.small_migrations import NOTE, run_python
from tests.support.small_project import migration
from tests.support.tiers import DEPLOY, decided_by_journal, dumps_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_ONE_NAME: Final = migration(
    "migrations.AddConstraint('item', models.UniqueConstraint(fields=['name'], name='one_name'))",
    after=[("demo", "0001_item")],
)


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server that no other test depends on."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@contextmanager
def _fleet(
    directory: Path, first: PostgresServer, last: PostgresServer, release: Mapping[str, str] | None = None
) -> Iterator[Fleet]:
    with small_fleet(directory, first, last, release or {"demo.0002_note": NOTE}) as fleet:
        yield fleet


def test_another_run_is_waited_for(server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> None:
    with _fleet(tmp_path, server, second_pg_server) as fleet, following("exit-5-another-run.md", fleet) as runbook:
        fleet.plan(shards=GATE_WAITS)
        before = dumps_of(fleet)
        with fleet.running() as other:
            other.wait_for("gate.started")
            assert runbook.follow(SEEN) == [5]
            (fleet.directory / "go").touch()
            assert other.finish().exit_code == 0
        after = dumps_of(fleet)
        assert all(after[name] != before[name] for name in before)

        assert runbook.follow(DONE) == [0]
        assert runbook.follow(OVER) == [0, 0]

        assert dumps_of(fleet) == after


def test_a_server_that_was_away_is_settled_when_it_is_back(
    server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, server, second_pg_server) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "two_phase"')
        decided_by_journal(fleet)
        fleet.kill("deploy", "journal.decision.after")
        with following("exit-4-server-away.md", fleet) as runbook:
            server.stop("immediate")
            try:
                assert runbook.follow(SEEN) == [4, 0]
            finally:
                server.start()
            assert [gid for gid in fleet.prepared() if ":primary:" in gid] == fleet.prepared() != []

            assert runbook.follow(DONE) == [0]
            assert runbook.follow(OVER) == [0, 0]

            assert fleet.prepared() == []
            assert all("0002_note" in text for text in dumps_of(fleet).values())


def test_values_that_were_written_since_are_saved_before_they_go(
    server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, server, second_pg_server) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "held_open"')
        before = dumps_of(fleet)
        assert fleet.deploy().exit_code == 0
        fleet.kill("rollback", "journal.decision.after")
        with fleet.first.connect() as session:
            session.execute("UPDATE demo_item SET note = 'red'")
        written = fleet.dumps()["primary"]

        with following("exit-4-rows-written-since.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert fleet.dumps()["primary"] == written
            assert runbook.follow(DONE) == [0, 0, 0]
            assert runbook.follow(OVER) == [0, 0]

            assert dumps_of(fleet) == before


def test_of_a_lost_journal_an_operator_decides(
    server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, server, second_pg_server) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "two_phase"')
        before = dumps_of(fleet)
        fleet.kill("deploy", "decide.before")
        shutil.rmtree(fleet.directory / ".smooth")
        prepared = fleet.prepared()

        with following("exit-4-journal-lost.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert fleet.prepared() == prepared != []
            assert runbook.follow(DONE) == [0, 0]
            assert fleet.prepared() == []
            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]

            assert all("0002_note" in text for text in dumps_of(fleet).values())


def test_what_has_failed_is_mended_and_deployed_again(
    server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0002_one_name": _ONE_NAME}
    with _fleet(tmp_path, server, second_pg_server, release) as fleet:
        fleet.plan()
        with fleet.first.connect() as session:
            session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        before = dumps_of(fleet)
        with following("exit-1-failed.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [1, 0]
            assert dumps_of(fleet) == before
            assert runbook.follow(DONE) == [1, 0, 0, 0]
            assert runbook.follow(OVER) == [0, 0]
        assert all("one_name" in text for text in dumps_of(fleet).values())


def test_a_plan_that_is_not_valid_is_mended(
    server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path / "plan", server, second_pg_server) as fleet:
        fleet.plan(deploy='lock_timout = "5s"')
        plan = fleet.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace('databases = ["primary"', 'databases = ["primry"'))
        before = dumps_of(fleet)
        with following("exit-2-invalid.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [2, 0]
            assert runbook.follow(DONE) == [0, 0]
            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]
        assert all("0002_note" in text for text in dumps_of(fleet).values())


def test_what_refuses_a_run_is_mended(server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> None:
    release = {
        "demo.0002_note": migration(
            "migrations.RunPython(forwards)",
            after=[("demo", "0001_item")],
            atomic=False,
            functions=run_python("apps.get_model('demo', 'Item').objects.update(name='red')"),
        )
    }
    with _fleet(tmp_path / "plan", server, second_pg_server, release) as fleet:
        fleet.plan()
        before = dumps_of(fleet)
        with following("exit-3-refused.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [3, 0]
            assert runbook.follow(DONE) == [0, 0]
            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]
        assert all("0002_note" in text for text in dumps_of(fleet).values())
