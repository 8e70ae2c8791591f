"""Migrations and surroundings that a deploy must not be led astray by."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.leases import until
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.processes import kill_family
from tests.support.runs import SCRIPT, Outcome
from tests.support.small_migrations import DEFINING, NOTE, failing, run_python
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

Servers = tuple[PostgresServer, PostgresServer]
_FAILS_LONG = failing("raise ValueError('no such kind: ' + 'x' * 5_000_000)")
_FAILS_LAST = failing("if editor.connection.alias == 'shard_1': raise ValueError('no')")

_AWAITED = "until [ -e away ]; do sleep 0.05; done;"


@pytest.fixture
def servers(pg_server: PostgresServer, second_pg_server: PostgresServer) -> Servers:
    return pg_server, second_pg_server


@pytest.mark.long
def test_a_commit_within_a_migration_is_told_and_not_called_a_rollback(servers: Servers, tmp_path: Path) -> None:
    commits = migration(
        "migrations.AddField('item', 'kind', models.CharField(max_length=9, default='any'))",
        "migrations.RunSQL('COMMIT', '')",
        after=[("demo", "0002_note")],
    )
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE, "demo.0003_kind": commits}) as fleet:
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (4, "needs_operator"), outcome.stderr
        messages = [
            error["message"] for error in outcome.report["errors"] if "has ended the transaction" in error["message"]
        ]
        assert messages
        assert set(outcome.outcomes.values()) <= {"in_doubt", "rolled_back", "unchanged"}


def _bring_up_to_date_meanwhile(fleet: Fleet, deploy: str) -> None:
    """Let somebody else migrate the last database, which then has nothing pending when its turn comes."""
    fleet.plan(deploy=deploy, canary='gate = ["./bring-up-to-date"]')
    script = fleet.directory / "bring-up-to-date"
    script.write_text(
        f"#!/bin/sh\ncd project && exec {sys.executable} -B manage.py migrate demo 0002 --database=shard_1 -v0\n"
    )
    script.chmod(0o755)


@pytest.mark.long
def test_a_database_that_the_run_did_not_change_is_not_taken_back(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE, "demo.0003_kind": _FAILS_LAST}) as fleet:
        _bring_up_to_date_meanwhile(fleet, deploy='expand_contract = false\ncommit = "phase"')
        before = fleet.dumps(sequences=False)
        outcome = fleet.deploy()
        assert outcome.exit_code == 1, outcome.stderr
        after = fleet.dumps(sequences=False)
        assert (after["primary"], after["kiosk"]) == (before["primary"], before["kiosk"])
        assert "0002_note" in after[LAST]
        assert "kite" in after[LAST]


@pytest.mark.long
def test_a_database_that_the_run_did_not_change_is_not_said_to_be_changed(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        _bring_up_to_date_meanwhile(fleet, deploy="expand_contract = false")
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert outcome.outcomes == {"primary": "committed", "kiosk": "committed", LAST: "unchanged"}


@pytest.mark.long
def test_a_value_of_the_environment_that_is_a_word_of_the_report_leaves_it_whole(
    servers: Servers, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        plan = tmp_path / "deploy.toml"
        text = plan.read_text().replace("env = { ", 'env = { MODE = "deploy", LEVEL = "error", ')
        plan.write_text(text)
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["deploy"]) == (0, "small"), outcome.stderr
        assert {line["deploy"] for line in outcome.log if line["event"] != "worker.started"} == {"small"}


@pytest.mark.long
def test_a_run_id_that_another_deploy_has_used_is_free_for_this_one(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        plan = tmp_path / "deploy.toml"
        plan.write_text(plan.read_text().replace('name = "small"', 'name = "other"'))
        assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"
        fleet.execute("ALTER TABLE demo_item DROP COLUMN note; DELETE FROM django_migrations WHERE name = '0002_note'")
        fleet.plan()
        assert fleet.deploy("--run-id", "build-7").report["outcome"] == "committed"
        assert all("0002_note" in text for text in fleet.dumps().values())


@pytest.mark.long
def test_a_connection_without_autocommit_is_committed(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        for database in fleet.databases.values():
            database["AUTOCOMMIT"] = False
        assert fleet.deploy().report["outcome"] == "committed"
        assert all("0002_note" in text for text in fleet.dumps().values())


def test_a_journal_that_fails_after_a_phase_was_committed_takes_that_back(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy='expand_contract = false\ncommit = "phase"', canary='gate = ["./break-the-journal"]')
        script = tmp_path / "break-the-journal"
        script.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c \"import sqlite3; c = sqlite3.connect('.smooth/journal.db'); "
            "c.execute('CREATE TRIGGER no_more BEFORE INSERT ON journal "
            "WHEN new.kind = \\'phase_started\\' BEGIN SELECT RAISE(ABORT, \\'full\\'); END'); c.commit()\"\n"
        )
        script.chmod(0o755)
        before = fleet.dumps(sequences=False)
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_what_a_gate_has_started_ends_with_it(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(canary='gate = ["sh", "-c", "sleep 300 & echo started; wait"]')
        before = fleet.dumps()
        with fleet.running() as run:
            run.wait_for("gate.started")
            coordinator = psutil.Process(run.process.pid)
            sleeping = [child for child in coordinator.children(recursive=True) if "sleep" in child.name()]
            run.process.terminate()
            assert run.finish().exit_code == 1
        assert not [child for child in sleeping if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        assert fleet.dumps() == before


@pytest.mark.long
@pytest.mark.parametrize(
    ("start", "left"),
    [
        ("sleep 300 &", 0),
        # What has a session of its own has asked to be left alone.
        pytest.param(f"setsid sh -c ': > away; exec sleep 300' & {_AWAITED}", 1, marks=pytest.mark.long),
    ],
    ids=["in its session", "in another one"],
)
def test_a_gate_has_passed_when_it_has_ended_whatever_it_leaves_behind(
    start: str, left: int, servers: Servers, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        gate = f'gate = ["sh", "-c", "echo started; {start} printf ended"]'
        fleet.plan(deploy='expand_contract = false\nstatement_timeout = "5s"', canary=gate)
        try:
            outcome = fleet.deploy()
            assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
            assert [line["line"] for line in outcome.named("output.captured")] == ["started", "ended"]
            until(lambda: len(fleet.processes()) == left)
        finally:
            for process in fleet.processes():
                kill_family(process.pid)


@pytest.mark.long
def test_what_a_gate_said_before_it_hung_is_logged(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        speech = "echo looking; head -c 9000000 /dev/zero | tr '\\\\0' x; printf '\\\\nstill looking'; sleep 300"
        fleet.plan(
            deploy='expand_contract = false\nstatement_timeout = "5s"', canary=f'gate = ["sh", "-c", "{speech}"]'
        )
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["error"]["type"]) == (1, "gate_failed"), outcome.stderr
        lines = [line["line"] for line in outcome.named("output.captured")]
        assert lines == ["looking", "x" * 8192, "still looking"]


@pytest.mark.long
def test_a_callback_that_raises_after_the_commit_changes_nothing_of_it(servers: Servers, tmp_path: Path) -> None:
    body = "from django.db import transaction; transaction.on_commit(lambda: 1 / 0, using=editor.connection.alias)"
    release = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=run_python(body)
    )
    with small_fleet(tmp_path, *servers, {"demo.0002_note": release}) as fleet:
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert outcome.named("recover.started") == []
        assert any("ZeroDivisionError" in line["line"] for line in outcome.named("output.captured"))


@pytest.mark.long
@pytest.mark.parametrize(
    "spelling", ["address", *(pytest.param(each, marks=pytest.mark.long) for each in ("several hosts", "URI"))]
)
def test_one_database_under_two_spellings_is_refused(spelling: str, servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        port = fleet.databases["shard_1"]["PORT"]
        fleet.databases["shard_2"] = {
            "address": {**fleet.databases["shard_1"], "HOST": "127.1"},
            "several hosts": {**fleet.databases["shard_1"], "HOST": "127.1,127.0.0.1", "PORT": f"{port},{port}"},
            "URI": {**fleet.databases["kiosk"], "NAME": f"file:{fleet.kiosk}?mode=rw", "OPTIONS": {"uri": True}},
        }[spelling]
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert outcome.exit_code == 3, outcome.stderr
        assert [error["place"] for error in outcome.report["errors"]] == ["shards:shard_2"]
        assert fleet.dumps() == before


@pytest.mark.long
def test_a_value_added_to_a_type_may_be_used_by_the_next_migration(servers: Servers, tmp_path: Path) -> None:
    sql = (
        "[] if editor.connection.vendor == 'sqlite' else "
        "editor.execute(\"CREATE TYPE mood AS ENUM ('fine')\") or editor.execute('CREATE TABLE moods (mood mood)')"
    )
    first = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=run_python(sql)
    )
    adds = "editor.connection.vendor == 'sqlite' or editor.execute(\"ALTER TYPE mood ADD VALUE 'glad'\")"
    second = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0002_note")], functions=run_python(adds)
    )
    uses = "editor.connection.vendor == 'sqlite' or editor.execute(\"INSERT INTO moods VALUES ('glad')\")"
    third = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0003_adds")], functions=run_python(uses)
    )
    with small_fleet(tmp_path, *servers, {"demo.0002_note": first}) as fleet:
        assert fleet.deploy().exit_code == 0
        (tmp_path / "project/demo/migrations/0003_adds.py").write_text(second)
        (tmp_path / "project/demo/migrations/0004_uses.py").write_text(third)
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert {line["database"] for line in outcome.named("tier.changed")} == {"primary", LAST}
        tiers = {entry["database"]: entry["tier"] for entry in outcome.report["databases"]}
        assert tiers == {"primary": "compensated", "kiosk": "held_open", LAST: "compensated"}


@pytest.mark.long
def test_a_look_leaves_no_file_behind(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {}) as fleet:
        fresh = tmp_path / "fresh"
        fresh.mkdir()
        (fresh / "project").symlink_to(tmp_path / "project")
        (fresh / "deploy.toml").write_text((tmp_path / "deploy.toml").read_text())
        fleet.databases["kiosk"]["NAME"] = str(fresh / "kiosk.sqlite3")
        environment = os.environ | {fleet.variable: json.dumps(fleet.databases)}
        for command in ("status", "check", "plan", "runs"):
            done = subprocess.run([SCRIPT, command, "deploy.toml"], cwd=fresh, env=environment, check=False)
            assert done.returncode == 0
        assert sorted(path.name for path in fresh.iterdir()) == ["deploy.toml", "project"]


@pytest.mark.long
def test_options_may_stand_before_the_plan(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        done = subprocess.run(
            [SCRIPT, "--json", "deploy.toml"],
            cwd=tmp_path,
            env=os.environ | {fleet.variable: json.dumps(fleet.databases)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert Outcome(done.returncode, done.stdout, done.stderr).report["outcome"] == "committed"
        with closing(sqlite3.connect(fleet.kiosk)) as connection:
            assert connection.execute("SELECT note FROM demo_item").fetchall() == [("none",)]


@pytest.mark.parametrize(
    "gate", ["sleep 1", pytest.param("false", marks=pytest.mark.long)], ids=["decision", "way back"]
)
def test_a_server_that_goes_away_with_a_held_transaction_has_rolled_it_back(
    gate: str, pg_server: PostgresServer, tmp_path: Path
) -> None:
    with (
        PostgresServer(settings=THROW_AWAY) as own,
        small_fleet(tmp_path, own, pg_server, {"demo.0002_note": NOTE}) as fleet,
    ):
        fleet.plan(shards=f'gate = ["sh", "-c", "until [ -e stopped ]; do sleep 0.1; done; {gate}"]')
        before = fleet.dumps()
        with fleet.running() as run:
            run.wait_for("gate.started")
            own.stop("immediate")
            (tmp_path / "stopped").touch()
            outcome = run.finish()
        own.start()
        assert [line["decision"] for line in outcome.named("deploy.decided")] == ["abort"]
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert fleet.dumps() == before


@pytest.mark.long
def test_a_copy_that_a_migration_forks_does_not_go_on_as_a_second_worker(servers: Servers, tmp_path: Path) -> None:
    release = migration(
        "migrations.RunPython(forwards, nothing)", after=[("demo", "0001_item")], functions=run_python("os.fork()")
    )
    with small_fleet(tmp_path, *servers, {"demo.0002_note": release}) as fleet:
        # Each further attempt would fork again.
        fleet.plan(deploy="expand_contract = false\nlock_retries = 0")
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert fleet.processes() == []


@pytest.mark.long
def test_a_copy_that_settings_fork_is_no_second_worker(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        with (tmp_path / "project/small_settings.py").open("a") as settings:
            settings.write("if os.fork() == 0:\n    raise SystemExit(3)\n")
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr


@pytest.mark.long
def test_a_worker_whose_files_a_migration_closes_is_not_waited_for(servers: Servers, tmp_path: Path) -> None:
    release = migration(
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0001_item")],
        functions=run_python("os.closerange(3, 64)"),
    )
    with small_fleet(tmp_path, *servers, {"demo.0002_note": release}) as fleet:
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["error"]["type"]) == (1, "worker_lost"), outcome.stderr
        fleet.wait_until_alone()
        assert fleet.dumps() == before


@pytest.mark.long
def test_an_undo_that_takes_longer_than_a_statement_may_is_not_taken_for_a_worker_that_hangs(
    servers: Servers, tmp_path: Path
) -> None:
    # Statement by statement, a worker that hangs is given up after ten seconds more than one may take.
    naps = "[editor.execute('SELECT pg_sleep(0.7)') for _ in range(18) if editor.connection.alias == 'default']"
    slow = migration(
        "migrations.RunPython(defining, forwards)",
        after=[("demo", "0001_item")],
        atomic=False,
        functions=DEFINING + run_python(naps),
    )
    with small_fleet(tmp_path, *servers, {"demo.0002_note": slow, "demo.0003_kind": _FAILS_LAST}) as fleet:
        fleet.plan(deploy='expand_contract = false\nstatement_timeout = "1s"')
        before = fleet.dumps(sequences=False)
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert len(outcome.named("worker.started")) <= 2
        assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_megabytes_in_an_error_are_not_logged(servers: Servers, tmp_path: Path) -> None:
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE, "demo.0003_kind": _FAILS_LONG}) as fleet:
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back")
        message = outcome.report["error"]["message"]
        assert message.startswith("no such kind: xxx")
        assert "characters left out" in message
        assert max(map(len, outcome.stderr.splitlines())) < 100_000


@pytest.mark.long
@pytest.mark.parametrize("atomicity", ["two_phase", "held_open", "compensated"])
def test_a_name_is_never_read_as_sql(servers: Servers, tmp_path: Path, atomicity: str) -> None:
    alias = "shard_'); DROP TABLE demo_item; --\"\\' %s {0}\n\t\u2603\U0001f642"
    with small_fleet(tmp_path, *servers, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy='expand_contract = false\nsettle_timeout = "2s"', servers=f'atomicity = "{atomicity}"')
        fleet.databases[alias] = fleet.databases.pop("shard_1")
        before = fleet.dumps(sequences=False, applied=False)
        for command in ("plan", "check", "status", "rehearse"):
            outcome = fleet.run(command)
            assert outcome.exit_code == 0, outcome.stdout + outcome.stderr
            assert [entry["alias"] for entry in outcome.report["databases"]] == ["default", "kiosk", alias]
        # With one last resource its commit is the decision, and with several databases held open the journal's row.
        undecided = "journal.decision.before" if atomicity == "held_open" else "decide.before"
        assert fleet.run("deploy", failpoint=undecided).exit_code == -9
        doubts = fleet.run("status").report["databases"][2]["in_doubt"]
        assert len(doubts) == (atomicity == "two_phase")
        assert fleet.run("recover").exit_code == 0
        assert fleet.dumps(sequences=False, applied=False) == before

        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.outcomes[f"shards:{alias}"]) == (0, "committed"), outcome.stderr
        after = fleet.dumps(sequences=False, applied=False)
        assert all("kite" in text and "0002_note" in text for text in after.values())
        assert fleet.run("rollback").exit_code == 0
        assert fleet.dumps(sequences=False, applied=False) == before
