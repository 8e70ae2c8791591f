"""Runs that are settled by another command than their own, twice, from a damaged journal, or under a used name."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.crash_points import UNDECIDED
from tests.support.deploys import LAST, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.settled import BY_PHASE, DEPLOY, TWO_PHASE, fleet_with, kill_at, schemas_of, settle
from tests.support.small_migrations import KIND, NOTE, failing
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_RELEASE = {"demo.0002_note": NOTE, "demo.0003_kind": KIND}
_MORE = migration(
    "migrations.AddField('item', 'more', models.CharField(max_length=40, default='no'))", after=[("demo", "0003_kind")]
)
_FAILS_LAST = failing("if editor.connection.alias == 'shard_1': raise ValueError('no')")


@pytest.mark.long
@pytest.mark.parametrize("on_failure", ["rollback", pytest.param("halt", marks=pytest.mark.long)])
def test_a_rollback_is_one_decision_also_where_the_plan_commits_by_phase(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, on_failure: str
) -> None:
    with fleet_with(tmp_path, servers, _RELEASE, deploy=f'{BY_PHASE}\non_failure = "{on_failure}"') as fleet:
        before = schemas_of(fleet)
        assert fleet.deploy().exit_code == 0
        kill_at(fleet, "decide.after", "rollback")

        assert settle(fleet).report["outcome"] == "committed"
        assert schemas_of(fleet) == before


@pytest.mark.long
@pytest.mark.parametrize("command", ["finalise", pytest.param("recover", marks=pytest.mark.long)])
def test_a_deploy_by_phase_is_settled_as_such_by_any_command(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, command: str
) -> None:
    release = {"demo.0002_note": NOTE, "demo.0003_kind": _FAILS_LAST}
    with fleet_with(tmp_path, servers, release, deploy=BY_PHASE) as fleet:
        before = schemas_of(fleet)
        kill_at(fleet, "journal.phase_started.before:2")
        # The plan may have been changed since.
        fleet.plan(deploy=BY_PHASE if command == "finalise" else DEPLOY, servers=TWO_PHASE)

        settled = fleet.run(command)

        assert settled.exit_code == 0, settled.stderr
        assert schemas_of(fleet) == before


@pytest.mark.long
def test_a_phase_that_was_decided_stays_so_when_its_recovery_is_killed(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with fleet_with(tmp_path, servers, _RELEASE, deploy=f'{BY_PHASE}\non_failure = "halt"') as fleet:
        plan = fleet.directory / "deploy.toml"
        text = plan.read_text().replace('["primary", "kiosk"]', '["primary", "shards:?"]')
        plan.write_text(text.replace('["shards:*"]', '["kiosk"]').replace("shards:?", "shards:*"))
        before = schemas_of(fleet)
        kill_at(fleet, "journal.decision.after")
        kill_at(fleet, "journal.decision.after", "recover")

        recovered = settle(fleet)

        assert recovered.outcomes == {"primary": "committed", LAST: "committed", "kiosk": "unchanged"}
        after = schemas_of(fleet)
        assert after["kiosk"] == before["kiosk"]
        assert all("0003_kind" in after[name] for name in ("primary", LAST))


@pytest.mark.long
def test_a_recovery_from_a_shortened_journal_may_be_killed_too(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with fleet_with(tmp_path, servers, _RELEASE, deploy=DEPLOY) as fleet:
        before = schemas_of(fleet)
        kill_at(fleet, UNDECIDED)
        with closing(sqlite3.connect(fleet.directory / ".smooth/journal.db")) as journal, journal:
            journal.execute("DROP TRIGGER journal_is_not_deleted_from")
            begun = "SELECT max(seq) FROM journal WHERE kind = 'intent' AND database = ?"
            journal.execute(f"DELETE FROM journal WHERE seq >= ({begun})", [LAST])
        kill_at(fleet, "journal.decision.after", "recover")

        settle(fleet)

        assert schemas_of(fleet) == before


@pytest.mark.long
def test_the_mark_of_an_earlier_use_of_a_run_id_is_no_decision(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with fleet_with(tmp_path, servers, {"demo.0002_note": NOTE}, deploy=DEPLOY) as fleet:
        assert fleet.deploy("--run-id", "build-7").exit_code == 0
        # Such as on a pipeline's next machine.
        shutil.rmtree(fleet.directory / ".smooth")
        (fleet.directory / "project/demo/migrations/0003_kind.py").write_text(KIND)
        before = schemas_of(fleet)

        # The worker of the last resource is killed before it commits.
        failed = fleet.run("deploy", "--run-id", "build-7", failpoint="commit.before")
        assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
        assert schemas_of(fleet) == before

        kill_at(fleet, UNDECIDED, "deploy", "--run-id", "build-7")
        assert settle(fleet).report["outcome"] == "rolled_back"
        assert schemas_of(fleet) == before


@pytest.mark.long
@pytest.mark.parametrize("same_plan", [False, True])
def test_of_a_lost_journal_what_the_run_did_not_touch_is_not_moved_by_its_settlement(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path, *, same_plan: bool
) -> None:
    with fleet_with(tmp_path, servers, _RELEASE, deploy=DEPLOY) as fleet:
        fleet.migrate("kiosk")
        kiosk = schemas_of(fleet)["kiosk"]
        kill_at(fleet, "journal.decision.after")
        (gid,) = [gid for gid in fleet.prepared() if ":primary:" in gid]
        with fleet.first.connect() as session:
            session.autocommit = True
            session.execute(f"COMMIT PREPARED '{gid}'".encode())
        shutil.rmtree(fleet.directory / ".smooth")
        newer = fleet.directory / "project/demo/migrations/0004_more.py"
        newer.write_text(_MORE)
        if not same_plan:
            # By another plan than the run's nobody knows which databases were its own.
            fleet.plan(deploy=f"{DEPLOY}\nlock_retries = 3", servers=TWO_PHASE)

        settled = fleet.run("recover")

        assert schemas_of(fleet)["kiosk"] == kiosk
        assert not fleet.prepared()
        if same_plan:
            assert (settled.exit_code, settled.outcomes["kiosk"]) == (4, "in_doubt"), settled.stderr
            assert settled.report["error"]["message"] == "demo.0004_more would run too, and not of this run"
            newer.unlink()
            fleet.run_printed(settled)
        else:
            assert (settled.exit_code, settled.outcomes["kiosk"]) == (4, "unchanged"), settled.stderr
            assert settled.report["error"]["type"] == "no_trace"
            assert fleet.run("recover").exit_code == 4
            accepted = fleet.run_printed(settled)
            assert [each["type"] for each in accepted.report["errors"]] == ["no_trace"]
            newer.unlink()
        after = schemas_of(fleet)
        assert after["kiosk"] == kiosk
        assert all("0003_kind" in after[name] for name in ("primary", LAST))


@pytest.mark.long
def test_what_another_program_has_prepared_under_a_like_name_is_no_run(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with fleet_with(tmp_path, servers, {"demo.0002_note": NOTE}, deploy=DEPLOY) as fleet:
        gids = ["smooth::x:1", "smooth:a b:primary:1", "smooth:batch", "smooth:batch:primary:first"]
        with fleet.first.connect() as session:
            for number, gid in enumerate(gids):
                session.execute("BEGIN")
                session.execute(f"CREATE TABLE theirs_{number} (x int)".encode())
                session.execute(f"PREPARE TRANSACTION '{gid}'".encode())

        for command, outcome in (("deploy", "committed"), ("recover", "nothing_to_do")):
            done = fleet.run(command)
            assert (done.exit_code, done.report["outcome"]) == (0, outcome), done.stderr
            assert done.named("recover.started") == []
        assert fleet.prepared() == gids


@pytest.mark.long
def test_what_was_written_after_the_decision_to_roll_back_is_lost_only_where_an_operator_says_so(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with fleet_with(tmp_path, servers, {"demo.0002_note": NOTE}, deploy=DEPLOY) as fleet:
        fleet.plan(deploy=DEPLOY, servers='atomicity = "held_open"')
        before = schemas_of(fleet)
        assert fleet.deploy().exit_code == 0
        # The workers roll back what they hold.
        kill_at(fleet, "journal.decision.after", "rollback")
        with fleet.first.connect() as session:
            session.execute("UPDATE demo_item SET note = 'red'")
        written = fleet.dumps()["primary"]

        for command in ("recover", "deploy"):
            refused = fleet.run(command)

            assert (refused.exit_code, refused.report["outcome"]) == (4, "needs_operator"), refused.stderr
            assert refused.outcomes == {LAST: "committed", "primary": "in_doubt", "kiosk": "committed"}
            message = "demo.0002_note: the values of note would be lost (1 row of demo_item)"
            assert refused.report["error"]["message"] == message
            assert "recover PLAN --discard-data" in refused.report["error"]["hint"]
            assert refused.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --discard-data"]
            assert fleet.dumps()["primary"] == written

        assert fleet.run_printed(refused).report["outcome"] == "committed"
        assert schemas_of(fleet) == before
        assert fleet.run("recover").report["outcome"] == "nothing_to_do"


@pytest.mark.long
def test_what_a_run_has_left_behind_for_good_is_told_until_an_operator_accepts_it(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    makes = "editor.connection.cursor().execute('CREATE VIEW left_behind AS SELECT 1 AS one')"
    breaks = failing(f"if editor.connection.alias == 'shard_1': {makes}; raise ValueError('no')", atomic=False)
    release = {"demo.0002_note": NOTE.replace("atomic = True", "atomic = False"), "demo.0003_kind": breaks}
    with small_fleet(tmp_path, *servers, release) as fleet:
        fleet.plan(deploy=DEPLOY)
        before = schemas_of(fleet)
        told = fleet.deploy()

        for _attempt in range(2):
            assert (told.exit_code, told.outcomes[LAST]) == (4, "in_doubt"), told.stderr
            (message,) = {
                each["message"]
                for each in (told.report["error"], *told.report["errors"])
                if each["type"] == "SchemaDiffers"
            }
            assert message.endswith("+ view public.left_behind owner: postgres")
            assert told.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --no-fingerprint"]
            assert "note" not in schemas_of(fleet)[LAST]
            told = fleet.run("recover")

        assert fleet.run_printed(told).report["outcome"] == "rolled_back"
        assert fleet.run("recover").report["outcome"] == "nothing_to_do"
        with fleet.last.connect() as session:
            session.execute("DROP VIEW left_behind")
        assert schemas_of(fleet) == before


@pytest.mark.long
def test_what_somebody_else_has_rolled_back_after_the_decision_is_run_forward(
    servers: tuple[PostgresServer, PostgresServer], tmp_path: Path
) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.databases["kiosk"]["OPTIONS"] = {"timeout": 60}
        at, go = fleet.directory / "at", fleet.directory / "go"
        gate = fleet.directory / "gate.sh"
        gate.write_text(f"#!/bin/sh\ntouch {at}\nuntil [ -e {go} ]; do sleep 0.1; done\n")
        gate.chmod(0o755)
        fleet.plan(deploy="expand_contract = false", servers=TWO_PHASE, shards='gate = ["./gate.sh"]')
        with closing(sqlite3.connect(fleet.kiosk, isolation_level=None)) as reader, fleet.running() as run:
            while not at.exists():
                assert run.process.poll() is None
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            go.touch()
            while len(gids := fleet.prepared()) < 2:
                assert run.process.poll() is None
            (gid,) = [gid for gid in gids if ":primary:" in gid]
            with fleet.first.connect() as session:
                session.autocommit = True
                session.execute(f"ROLLBACK PREPARED '{gid}'".encode())
            reader.execute("ROLLBACK")
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert all("0002_note" in text for text in fleet.dumps().values())
