"""Each runbook for an operator who is needed is followed in the situation that it is for, made on real servers."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.repositories import tag
from tests.support.runbooks import DONE, MEANS, OVER, SEEN, following
from tests.support.small_migrations import DEFINING, NOTE, failing, run_python
from tests.support.small_project import migration
from tests.support.tiers import DEPLOY, dumps_of

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_TWO_PHASE: Final = 'atomicity = "two_phase"'
_HELD_OPEN: Final = 'atomicity = "held_open"'
_HALTS: Final = f'{DEPLOY}\ncommit = "phase"\non_failure = "halt"'


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> tuple[PostgresServer, PostgresServer]:
    return pg_server, second_pg_server


def _new(fleet: Fleet, name: str = "0002_note") -> set[str]:
    return {database for database, text in dumps_of(fleet).items() if name in text}


@pytest.mark.parametrize("way", ["To go on", "To take it back"])
def test_a_halted_run_goes_on_or_goes_back(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, way: str
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=_HALTS, servers=_TWO_PHASE, shards='gate = ["test", "-e", "ready"]')
        before = dumps_of(fleet)
        with following("exit-4-halted.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert (_new(fleet), fleet.prepared()) == ({"primary", "kiosk"}, [])

            codes = runbook.follow(way)

            assert {*codes} == {0}
            if way == "To go on":
                assert _new(fleet) == {"primary", "kiosk", LAST}
            else:
                assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]


def test_what_is_different_in_a_schema_is_mended(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    makes = "editor.connection.cursor().execute('CREATE VIEW left_behind AS SELECT 1 AS one')"
    breaks = failing(f"if editor.connection.alias == 'shard_1': {makes}; raise ValueError('no')", atomic=False)
    release = {"demo.0002_note": NOTE.replace("atomic = True", "atomic = False"), "demo.0003_kind": breaks}
    with small_fleet(tmp_path / "plan", *servers, release) as fleet:
        fleet.plan(deploy=DEPLOY)
        before = dumps_of(fleet)
        assert fleet.deploy().exit_code == 4
        with following("exit-4-schema-differs.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert dumps_of(fleet) != before

            assert runbook.follow(DONE) == [0, 0]

            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]


@pytest.mark.parametrize("way", ["Where the database is still there", "Where the database is gone for good"])
def test_a_run_with_a_database_that_is_not_in_the_plan_is_settled(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, way: str
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers=_TWO_PHASE)
        before = dumps_of(fleet)
        plan = fleet.directory / "deploy.toml"
        whole = plan.read_text()
        tag(fleet.directory, "v1")
        fleet.kill("deploy", "decide.before")
        with following("exit-4-database-not-in-plan.md", fleet) as runbook:
            head, _, tail = whole.partition("[databases.shards]")
            canary, _, _fleet = tail[tail.index("[[phases]]") :].partition('[[phases]]\nname = "fleet"')
            plan.write_text(head + canary)
            assert runbook.follow(SEEN) == [4, 0]
            assert runbook.follow(MEANS) == [0]
            assert [gid for gid in fleet.prepared() if "shard_1" in gid] != []

            assert {*runbook.follow(way)} == {0}

            assert runbook.follow(OVER) == [0, 0]
        # What was given up comes back, after all.
        plan.write_text(whole)
        assert fleet.run("recover").exit_code == 0
        assert fleet.prepared() == []
        assert dumps_of(fleet) == before


def test_a_run_is_finished_with_the_files_of_its_release(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers=_HELD_OPEN)
        tag(fleet.directory, "v2")
        fleet.kill("deploy", "journal.decision.after")
        with following("exit-4-other-files.md", fleet) as runbook:
            (fleet.directory / "project/demo/migrations/0002_note.py").unlink()
            before = dumps_of(fleet)
            assert runbook.follow(SEEN) == [4, 0]
            assert dumps_of(fleet) == before

            assert runbook.follow(DONE) == [0, 0]

            assert _new(fleet) == {"primary", "kiosk", LAST}
            assert runbook.follow(OVER) == [0, 0]


def test_what_a_killed_run_has_left_is_settled(servers: tuple[PostgresServer, PostgresServer], tmp_path: Path) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=DEPLOY, servers=_TWO_PHASE)
        fleet.kill("deploy", "decide.before")
        with following("exit-137-killed.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [0]
            assert runbook.follow(MEANS) == [0, 0]
            assert len(fleet.prepared()) == 2

            assert runbook.follow(DONE) == [0, 0]

            assert runbook.follow(OVER) == [0, 0]
            assert fleet.prepared() == []
            assert _new(fleet) == {"primary", "kiosk", LAST}


def test_what_keeps_a_migration_from_going_back_is_mended(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    stuck = migration(
        "migrations.RunPython(defining, forwards)",
        after=[("demo", "0001_item")],
        atomic=False,
        functions=DEFINING + run_python("os.listdir('../archive')"),
    )
    breaks = failing("if editor.connection.alias == 'shard_1': raise ValueError('no such kind')", atomic=False)
    release = {"demo.0002_note": stuck, "demo.0003_kind": breaks}
    with small_fleet(tmp_path / "plan", *servers, release) as fleet:
        fleet.plan(deploy=DEPLOY)
        before = dumps_of(fleet)
        with following("exit-4-not-taken-back.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert runbook.follow(MEANS) == [0]

            assert runbook.follow(DONE) == [0, 0]

            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0, 0]


def test_a_database_of_which_nobody_knows_what_was_moved_is_moved_by_hand(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path / "plan", *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=f'{DEPLOY}\ncommit = "phase"', servers=_TWO_PHASE)
        before = dumps_of(fleet)
        fleet.kill("deploy", "journal.phase_started.before:2")
        with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
            journal.execute("DROP TRIGGER journal_is_not_deleted_from")
            begun = "SELECT max(seq) FROM journal WHERE kind = 'run_started'"
            first = f"SELECT min(seq) FROM journal WHERE kind = 'held' AND seq > ({begun})"
            assert journal.execute(f"DELETE FROM journal WHERE seq >= ({first})").rowcount
        with following("exit-4-moves-unknown.md", fleet) as runbook:
            assert runbook.follow(SEEN) == [4, 0]
            assert _new(fleet) == {"primary", "kiosk"}

            assert {*runbook.follow(DONE)} == {0}

            assert dumps_of(fleet) == before
            assert runbook.follow(OVER) == [0, 0]
