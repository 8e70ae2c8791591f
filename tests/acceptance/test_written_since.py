"""What is written to a phase that has committed while the deploy goes on, or lies cut off: kept, or told of."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import KIND, NOTE
from tests.support.small_project import migration
from tests.support.tiers import proxied

pytestmark = pytest.mark.timeout(180)

_DEPLOY = 'expand_contract = false\nsettle_timeout = "2s"\ncommit = "phase"'
_WRITING = "import psycopg, sys; psycopg.connect(sys.argv[1], autocommit=True).execute(sys.argv[2]); sys.exit(1)"
_NO_NAME = migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")])
_TAG = migration(
    "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True))])", after=[("demo", "0001_item")]
)
_AUTH = ("django.contrib.contenttypes", "django.contrib.auth")
_CUT_OFF = "journal.phase_started.before:2"
_LOSS = "demo.0002_note: the values of note would be lost (1 row of demo_item)"


@contextmanager
def _fleet(directory: Path, first: PostgresServer, last: PostgresServer) -> Iterator[Fleet]:
    with small_fleet(directory, first, last, {"demo.0002_note": NOTE, "demo.0003_kind": KIND}) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')
        yield fleet


def _notes(fleet: Fleet) -> list[str]:
    with fleet.first.connect() as session:
        return [note for (note,) in session.execute("SELECT note FROM demo_item ORDER BY note")]


def _new(fleet: Fleet) -> set[str]:
    return {name for name, text in fleet.dumps().items() if "0003_kind" in text}


@pytest.mark.long
def test_a_phase_that_was_written_to_is_not_taken_back_by_whoever_comes_next(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, pg_server, second_pg_server) as fleet:
        before = fleet.dumps(sequences=False, applied=False)
        killed = fleet.run("deploy", failpoint=_CUT_OFF)
        assert killed.exit_code == -9, killed.stderr
        fleet.wait_until_alone()
        with fleet.first.connect() as session:
            assert session.execute("UPDATE demo_item SET note = 'red' WHERE name = 'kite'").rowcount == 1
        written = _notes(fleet)

        for command in ("finalise", "deploy", "recover"):
            asked = fleet.run(command)
            assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
            assert asked.outcomes == {"primary": "in_doubt", "kiosk": "in_doubt", LAST: "unchanged"}
            told = {each["database"]: each["error"] for each in asked.report["databases"]}
            assert told["primary"]["message"] == _LOSS
            assert told["kiosk"]["message"] == "it stays as it is with primary"
            assert asked.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --discard-data"]
            assert (_new(fleet), _notes(fleet)) == ({"primary", "kiosk"}, written)

        assert fleet.run_printed(asked).report["outcome"] == "rolled_back"

        assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
def test_what_is_lost_with_a_phase_that_a_deploy_takes_back_is_told(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    writes = "UPDATE demo_item SET note = 'red' WHERE name = 'kite'"
    with _fleet(tmp_path, pg_server, second_pg_server) as fleet:
        gate = json.dumps([sys.executable, "-c", _WRITING, fleet.first.dsn, writes])
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"', shards=f"gate = {gate}")
        before = fleet.dumps(sequences=False, applied=False)

        failed = fleet.deploy()

        assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
        (lost,) = [error for error in failed.report["errors"] if error["type"] == "discarded"]
        assert (lost["database"], lost["message"]) == ("primary", _LOSS)
        assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
def test_what_cannot_be_looked_at_is_not_taken_for_what_loses_nothing(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, pg_server, second_pg_server) as fleet:
        fleet.plan(deploy=f'{_DEPLOY}\nlock_timeout = "200ms"\nlock_retries = 1', servers='atomicity = "two_phase"')
        before = fleet.dumps(sequences=False, applied=False)
        assert fleet.run("deploy", failpoint=_CUT_OFF).exit_code == -9
        fleet.wait_until_alone()
        with fleet.first.connect() as session, session.transaction():
            session.execute("LOCK TABLE demo_item")

            asked = fleet.run("recover")

        assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
        assert asked.outcomes == {"primary": "in_doubt", "kiosk": "in_doubt", LAST: "unchanged"}
        told = {each["database"]: each["error"] for each in asked.report["databases"]}
        assert told["primary"]["message"].startswith("nobody can tell what of primary would be lost: ")
        assert told["kiosk"]["message"] == "it stays as it is with primary"
        assert _new(fleet) == {"primary", "kiosk"}
        assert fleet.run("recover").report["outcome"] == "rolled_back"
        assert fleet.dumps(sequences=False, applied=False) == before


def _writing_before_the_first_lock(fleet: Fleet, first: FaultProxy, *, after: str = "") -> Fault:
    """Write where the way back of the first server's databases sends its first statement that takes a strong lock."""

    def write() -> None:
        with fleet.first.connect() as session:
            session.execute("UPDATE demo_item SET note = 'red' WHERE name = 'kite'")

    return first.arm(Fault("LOCK TABLE", Harm.DELAYED, after=after, meanwhile=write))


@pytest.mark.long
@pytest.mark.parametrize("isolation", ["read committed", "serializable"])
def test_what_is_written_after_the_look_of_recover_is_found_under_the_locks(
    isolation: str, pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, pg_server, second_pg_server) as fleet, proxied(fleet) as (first, _last):
        with fleet.first.connect() as session:
            database = session.info.dbname
            session.execute(f"ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'")
        before = fleet.dumps(sequences=False, applied=False)
        assert fleet.run("deploy", failpoint=_CUT_OFF).exit_code == -9
        fleet.wait_until_alone()
        fault = _writing_before_the_first_lock(fleet, first)

        asked = fleet.run("recover")

        assert fault.done.is_set()
        assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
        told = {each["database"]: each["error"] for each in asked.report["databases"]}
        assert (told["primary"]["type"], told["primary"]["message"]) == ("WouldDiscard", _LOSS)
        assert "--discard-data" in told["primary"]["hint"]
        assert "red" in _notes(fleet)
        assert "primary" in _new(fleet)
        assert asked.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --discard-data"]

        settled = fleet.run_printed(asked)

        assert settled.report["outcome"] == "rolled_back"
        assert [each["message"] for each in settled.report["errors"] if each["type"] == "discarded"] == [_LOSS]
        assert fleet.dumps(sequences=False, applied=False) == before


def test_what_is_written_while_a_deploy_goes_back_is_told_as_lost(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with _fleet(tmp_path, pg_server, second_pg_server) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"', shards='gate = ["false"]')
        before = fleet.dumps(sequences=False, applied=False)
        with proxied(fleet) as (first, _last):
            fault = _writing_before_the_first_lock(fleet, first, after="^COMMIT PREPARED")

            failed = fleet.deploy()

        assert fault.done.is_set()
        assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
        (lost,) = [error for error in failed.report["errors"] if error["type"] == "discarded"]
        assert (lost["database"], lost["message"]) == ("primary", _LOSS)
        assert fleet.dumps(sequences=False, applied=False) == before


def test_rows_that_the_old_schema_cannot_take_are_deleted_where_that_is_asked_for(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_no_name": _NO_NAME}) as fleet:
        fleet.plan(deploy='commit = "phase"', servers='atomicity = "two_phase"')
        before = fleet.dumps(sequences=False, applied=False)
        assert fleet.run("deploy", failpoint=_CUT_OFF).exit_code == -9
        fleet.wait_until_alone()
        with fleet.first.connect() as session:
            session.execute("INSERT INTO demo_item DEFAULT VALUES")

        asked = fleet.run("recover")

        assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
        settled = fleet.run_printed(asked)
        assert settled.report["outcome"] == "rolled_back", settled.stderr
        assert [each["message"] for each in settled.report["errors"] if each["type"] == "discarded"] == [
            "demo.0002_no_name: demo_item.name is NULL, and the rows would be deleted (1 row of demo_item)"
        ]
        assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
def test_what_was_given_of_what_a_phase_has_received_is_not_taken_away_unasked(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {"demo.0002_tag": _TAG}
    with small_fleet(tmp_path, pg_server, second_pg_server, release, installed=_AUTH) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')
        before = fleet.dumps(sequences=False, applied=False)
        assert fleet.run("deploy", failpoint=_CUT_OFF).exit_code == -9
        fleet.wait_until_alone()
        with fleet.first.connect() as session:
            session.execute("INSERT INTO auth_group (name) VALUES ('taggers')")
            session.execute(
                "INSERT INTO auth_group_permissions (group_id, permission_id) "
                "SELECT g.id, p.id FROM auth_group g, auth_permission p WHERE codename = 'add_tag'"
            )

        asked = fleet.run("recover")

        assert (asked.exit_code, asked.report["outcome"]) == (4, "needs_operator"), asked.stderr
        told = {each["database"]: each["error"] for each in asked.report["databases"]}
        assert told["primary"]["message"] == "1 rows of auth_group_permissions would be lost"
        assert asked.report["settle_with"] == ["smooth-orchestrate recover deploy.toml --discard-data"]
        assert fleet.run_printed(asked).report["outcome"] == "rolled_back"
        with fleet.first.connect() as session:
            session.execute("DELETE FROM auth_group")
        assert fleet.dumps(sequences=False, applied=False) == before


@pytest.mark.long
@pytest.mark.parametrize("is_atomic", [True, False])
def test_what_django_has_renamed_with_a_model_has_its_name_back_with_the_phase(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path, *, is_atomic: bool
) -> None:
    # A content type, and from 6.1 on permissions.
    renamed = migration("migrations.RenameModel('Item', 'Thing')", after=[("demo", "0001_item")], atomic=is_atomic)
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_thing": renamed}, installed=_AUTH) as fleet:
        fleet.plan(deploy=_DEPLOY)
        before = fleet.dumps(sequences=False, applied=False)
        assert fleet.run("deploy", failpoint=_CUT_OFF).exit_code == -9
        fleet.wait_until_alone()

        back = fleet.run("recover")

        assert (back.exit_code, back.report["outcome"]) == (0, "rolled_back"), back.stderr
        assert fleet.dumps(sequences=False, applied=False) == before
