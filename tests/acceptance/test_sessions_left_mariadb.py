"""A worker that is killed in the middle of a long ALTER TABLE on MariaDB: its run is settled, and stays settled."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import execute
from tests.support.leases import until
from tests.support.long_alter import LONG, ROWS, alters, let_it_end
from tests.support.mariadb_database import MariadbDatabase
from tests.support.next_release import project_of
from tests.support.processes import kill_family
from tests.support.runs import run_in, running_in

pytestmark = pytest.mark.timeout(180)

_PLAN = """\
version = 1
[deploy]
name = "maria"
[projects.one]
path = "project"
settings = "small_settings"
env = { SMALL_DATABASES = "${SMALL_DATABASES}" }
[databases.primary]
project = "one"
alias = "default"
"""


@pytest.fixture
def environment(mariadb_database: MariadbDatabase, tmp_path: Path) -> dict[str, str]:
    """What the program needs to know the database of a plan, whose next release takes long."""
    project_of(tmp_path, mariadb_database, {"demo.0002_note": LONG})
    execute(mariadb_database, ROWS)
    (tmp_path / "deploy.toml").write_text(_PLAN)
    return {"SMALL_DATABASES": json.dumps({"default": mariadb_database.django})}


@pytest.mark.long
def test_recover_ends_what_a_killed_run_has_left_at_work(
    mariadb_database: MariadbDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    before = dump(mariadb_database.dsn, sequences=False)
    with running_in(tmp_path, environment) as run:
        run.wait_for("migration.started")
        until(lambda: bool(alters(mariadb_database)))
        kill_family(run.process.pid)
    assert alters(mariadb_database)

    recovered = run_in(tmp_path, environment, "recover")

    assert (recovered.exit_code, recovered.outcomes) == (0, {"primary": "rolled_back"}), recovered.stderr
    let_it_end(mariadb_database)
    assert not diff(before, dump(mariadb_database.dsn, sequences=False))


def test_a_deploy_whose_worker_is_killed_ends_what_that_has_left_at_work(
    mariadb_database: MariadbDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    before = dump(mariadb_database.dsn, sequences=False)
    with running_in(tmp_path, environment) as run:
        run.wait_for("migration.started")
        until(lambda: bool(alters(mariadb_database)))
        os.kill(run.worker_pid(), signal.SIGKILL)
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    let_it_end(mariadb_database)
    assert not diff(before, dump(mariadb_database.dsn, sequences=False))


@pytest.mark.long
def test_recover_settles_nothing_beside_a_session_that_it_cannot_end(
    mariadb_database: MariadbDatabase, environment: dict[str, str], tmp_path: Path
) -> None:
    execute(mariadb_database, "CREATE OR REPLACE USER narrow@'127.0.0.1' IDENTIFIED BY 'narrow'")
    execute(mariadb_database, f"GRANT ALL ON {mariadb_database.name}.* TO narrow@'127.0.0.1'")
    narrow = {"default": mariadb_database.django | {"USER": "narrow", "PASSWORD": "narrow"}}
    with running_in(tmp_path, environment) as run:
        run.wait_for("migration.started")
        until(lambda: bool(alters(mariadb_database)))
        kill_family(run.process.pid)
    (session,) = alters(mariadb_database)

    refused = run_in(tmp_path, {"SMALL_DATABASES": json.dumps(narrow)}, "recover")

    assert alters(mariadb_database) == [session]
    assert (refused.exit_code, refused.report["outcome"]) == (5, "locked"), refused.stderr
    assert f"primary: session {session} is still at work" in refused.report["error"]["message"]
    assert f"KILL {session}" in refused.report["error"]["message"]
    assert run_in(tmp_path, environment, "recover").exit_code == 0
