"""Phases that have committed are taken back on every database, or on none."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome
from tests.support.small_migrations import KIND, NOTE
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"\ncommit = "phase"\nlock_timeout = "300ms"\nlock_retries = 1'
_PHASES = """\
[[phases]]
name = "servers"
databases = ["primary", "shards:*"]
[[phases]]
name = "file"
databases = ["kiosk"]
gate = ["sh", "-c", "until [ -e go ]; do sleep 0.05; done; exit 1"]
"""
_REVERSE = """\
def forwards(apps, editor):
    pass


def backwards(apps, editor):
    from django.db import connections, transaction

    if editor.connection.alias == "default":
        connections["beside"].cursor().execute("INSERT INTO written VALUES ('row')")

        def told():
            connections["beside"].cursor().execute("INSERT INTO written VALUES ('callback')")
            raise ValueError("nobody listens")

        transaction.on_commit(told, using="default")

"""
_REVERSED = migration("migrations.RunPython(forwards, backwards)", after=[("demo", "0003_kind")], functions=_REVERSE)
_DYING = """\
def forwards(apps, editor):
    pass


def backwards(apps, editor):
    import os, pathlib, signal, time

    if editor.connection.alias != "shard_1":
        return
    beside = pathlib.Path(os.environ["SMALL_BESIDE"])
    try:
        (beside / "has_died").touch(exist_ok=False)
    except FileExistsError:
        while not (beside / "goes_on").exists():
            time.sleep(0.02)
    else:
        os.kill(os.getpid(), signal.SIGKILL)

"""
_DIES = migration("migrations.RunPython(forwards, backwards)", after=[("demo", "0003_kind")], functions=_DYING)

_DURABLE = """\
def forwards(apps, editor):
    pass


def backwards(apps, editor):
    from django.db import transaction

    if editor.connection.alias == "default":
        with transaction.atomic(using="default", durable=True):
            apps.get_model("demo", "Item").objects.update(name="kite")

"""
_BY_ITSELF = migration(
    "migrations.RunPython(forwards, backwards)", after=[("demo", "0003_kind")], atomic=False, functions=_DURABLE
)


@pytest.fixture
def fleet(pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """Databases on two servers in the first phase, and a gate before the second one that fails when it is told to."""
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as found:
        found.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')
        plan = tmp_path / "deploy.toml"
        text = plan.read_text()
        plan.write_text(text[: text.index("[[phases]]")] + _PHASES)
        yield found


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in fleet.dumps(sequences=False, applied=False).items() if "0003_kind" in text}


def _failed_beside_a_reader(fleet: Fleet) -> Outcome:
    """Deploy, and keep the last database from being taken back by a transaction that has read its table."""
    with fleet.running() as run:
        run.wait_for("gate.started")
        with psycopg.connect(fleet.last.dsn) as reader:
            reader.execute("SELECT count(*) FROM demo_item").fetchall()
            (fleet.directory / "go").touch()
            failed = run.finish()
    assert (failed.exit_code, failed.report["outcome"]) == (4, "needs_operator"), failed.stderr
    return failed


def test_where_one_cannot_be_taken_back_none_is(fleet: Fleet) -> None:
    before = fleet.dumps(sequences=False, applied=False)
    failed = _failed_beside_a_reader(fleet)

    assert failed.outcomes == {"primary": "in_doubt", LAST: "in_doubt", "kiosk": "rolled_back"}
    told = {each["database"]: each["error"]["message"] for each in failed.report["databases"] if each["error"]}
    assert told["primary"] == f"it stays as it is with {LAST}"
    assert "lock timeout" in told[LAST]
    assert _new(fleet) == {"primary", LAST}

    settled = fleet.run_printed(failed)

    assert settled.report["outcome"] == "rolled_back"
    assert fleet.dumps(sequences=False, applied=False) == before


def test_what_a_lost_worker_held_of_the_way_back_keeps_the_others_where_it_cannot_be_held_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_BESIDE", str(fleet.directory))
    (fleet.directory / "project/demo/migrations/0004_dies.py").write_text(_DIES)
    plan = fleet.directory / "deploy.toml"
    # One worker for both, which dies at the last database while it holds the first one.
    plan.write_text(plan.read_text().replace('name = "servers"', 'name = "servers"\nparallel = 1'))
    before = fleet.dumps(sequences=False, applied=False)
    with fleet.running() as run:
        run.wait_for("gate.started")
        (fleet.directory / "go").touch()
        run.wait_for("worker.failed")
        with psycopg.connect(fleet.first.dsn, options="-c lock_timeout=20s") as reader:
            reader.execute("SELECT count(*) FROM demo_item").fetchall()
            (fleet.directory / "goes_on").touch()
            failed = run.finish()

    assert (failed.exit_code, failed.report["outcome"]) == (4, "needs_operator"), failed.stderr
    assert _new(fleet) == {"primary", LAST}

    settled = fleet.run_printed(failed)

    assert settled.report["outcome"] == "rolled_back"
    assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
def test_all_are_taken_back_where_all_can_be(fleet: Fleet) -> None:
    before = fleet.dumps(sequences=False, applied=False)
    (fleet.directory / "go").touch()

    failed = fleet.deploy()

    assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
    assert failed.outcomes == {"primary": "rolled_back", LAST: "rolled_back", "kiosk": "rolled_back"}
    unapplied = {line["database"] for line in failed.named("migration.unapplied")}
    assert unapplied == {"primary", LAST}
    assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
def test_what_reverse_code_does_elsewhere_waits_for_the_commit(fleet: Fleet) -> None:
    beside = fleet.directory / "beside.sqlite3"
    with closing(sqlite3.connect(beside)) as session:
        session.execute("CREATE TABLE written (what TEXT)")
    fleet.databases["beside"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(beside)}
    (fleet.directory / "project/demo/migrations/0004_reversed.py").write_text(_REVERSED)
    plan = fleet.directory / "deploy.toml"
    plan.write_text(
        plan.read_text().replace("\nproject = ", '\nother_aliases = "allow"\nbind_default = false\nproject = ')
    )

    def written() -> list[str]:
        with closing(sqlite3.connect(beside)) as session:
            return [what for (what,) in session.execute("SELECT what FROM written")]

    before = fleet.dumps(sequences=False, applied=False)
    failed = _failed_beside_a_reader(fleet)

    assert (_new(fleet), written()) == ({"primary", LAST}, [])

    settled = fleet.run_printed(failed)

    assert settled.report["outcome"] == "rolled_back", settled.stderr
    assert "nobody listens" in settled.stderr
    assert written() == ["row", "callback"]
    assert fleet.dumps(sequences=False, applied=False) == before


def test_code_with_transactions_of_its_own_goes_back_when_the_others_stand(fleet: Fleet) -> None:
    (fleet.directory / "project/demo/migrations/0004_by_itself.py").write_text(_BY_ITSELF)
    plan = fleet.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('atomicity = "two_phase"\n', ""))
    before = fleet.dumps(sequences=False, applied=False)
    failed = _failed_beside_a_reader(fleet)

    assert _new(fleet) == {"primary", LAST}

    settled = fleet.run_printed(failed)

    assert settled.report["outcome"] == "rolled_back"
    assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
@pytest.mark.parametrize(
    "point", ["undo.after", "reverse.before", "reverse.after", "restore.after", "undo_commit.after"]
)
def test_code_with_transactions_of_its_own_goes_back_after_a_kill(fleet: Fleet, point: str) -> None:
    (fleet.directory / "project/demo/migrations/0004_by_itself.py").write_text(_BY_ITSELF)
    plan = fleet.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('atomicity = "two_phase"\n', ""))
    (fleet.directory / "go").touch()
    before = fleet.dumps(sequences=False, applied=False)

    killed = fleet.run("deploy", failpoint=point)

    assert "worker.failed" in {line["event"] for line in killed.log}
    assert fleet.run("recover").exit_code == 0
    assert fleet.dumps(sequences=False, applied=False) == before
