"""What others wait for while a run that may still be given up waits itself: no longer than `max_lock_hold`."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.deploys import Fleet, small_fleet
from tests.support.fault_proxy import Fault, Harm
from tests.support.leases import until
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import NOTE
from tests.support.tiers import proxied

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

_DEPLOY = 'expand_contract = false\nsettle_timeout = "600s"\nmax_lock_hold = "6s"'


def _read_shard(fleet: Fleet) -> int:
    """Read what the run has locked, for as long as it takes, but far less than the run may wait for others."""
    with fleet.last.connect() as session:
        session.execute("SET statement_timeout = '60s'")
        (count,) = session.execute("SELECT count(*) FROM demo_item").fetchone() or (-1,)
        return int(count)


def test_a_server_that_does_not_answer_a_prepare_keeps_no_other_locked(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        go_on.wait()

    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"')
        before = fleet.dumps(sequences=False)
        with proxied(fleet) as (first, _last), fleet.running() as run:
            first.arm(Fault("^PREPARE TRANSACTION", Harm.DELAYED, meanwhile=hang))
            until(asked.is_set)
            try:
                read = _read_shard(fleet)
            finally:
                go_on.set()
            outcome = run.finish()
        assert read == 1
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.report["error"]["type"] == "max_lock_hold"
        assert fleet.dumps(sequences=False) == before
        assert not fleet.prepared()


def test_a_reader_of_the_last_resource_keeps_no_server_locked(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path: Path
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(deploy=_DEPLOY, servers='atomicity = "two_phase"', shards='gate = ["sleep", "1"]')
        before = fleet.dumps(sequences=False)
        with closing(sqlite3.connect(fleet.kiosk, isolation_level=None)) as reader, fleet.running() as run:
            run.wait_for("database.prepared", database="kiosk")
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM demo_item").fetchall()
            until(lambda: bool(fleet.last.server.prepared(fleet.last.name)))
            read = _read_shard(fleet)
            outcome = run.finish()
            reader.execute("ROLLBACK")
        assert read == 1
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.report["error"]["type"] == "max_lock_hold"
        assert fleet.dumps(sequences=False) == before
        assert not fleet.prepared()
