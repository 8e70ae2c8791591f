import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, fleet_on, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.shop import check_out
from tests.support.small_migrations import NOTE, failing, run_python
from tests.support.small_project import migration

_FAILS_LAST = failing("if editor.connection.alias == 'shard_1': raise ValueError('no such kind')")
_TWO_COLUMNS_OUTSIDE = migration(
    "migrations.AddField('item', 'note', models.CharField(max_length=40, default='none'))",
    "migrations.AddField('item', 'size', models.IntegerField(null=True))",
    after=[("demo", "0001_item")],
    atomic=False,
)
_RETYPED = migration("migrations.AlterField('item', 'name', models.IntegerField())", after=[("demo", "0001_item")])
_RELEASE_2 = {"catalog.0003_product_stock", "orders.0002_order_total", "orders.0003_fill_totals"}


@pytest.fixture
def shop(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """The shop, deployed at release 1, with release 2 checked out."""
    with fleet_on(tmp_path, pg_server, second_pg_server, settings="shop.settings", variable="SHOP_DATABASES") as fleet:
        check_out(1, tmp_path / "project")
        fleet.plan()
        assert fleet.deploy().exit_code == 0
        fleet.execute("INSERT INTO orders_customer (email, name) VALUES ('ada@example.com', 'Ada')")
        check_out(2, tmp_path / "project")
        yield fleet


def test_a_release_reaches_every_database_once(shop: Fleet) -> None:
    first = shop.deploy("--run-id", "friday")
    assert (first.exit_code, first.report["outcome"]) == (0, "committed"), first.stderr
    assert set(first.outcomes.values()) == {"committed"}
    assert all(set(entry["applied"]) >= _RELEASE_2 for entry in first.report["databases"])
    assert first.named("migration.failed") == []
    after = shop.dumps()
    assert all("total" in text for text in after.values())

    for options in ((), ("--run-id", "friday")):
        again = shop.deploy(*options)
        assert (again.exit_code, again.report["outcome"]) == (0, "nothing_to_do")
        assert again.named("migration.started") == []
    assert shop.dumps() == after


def test_a_release_that_fails_in_the_last_database_changes_none(shop: Fleet, tmp_path: Path) -> None:
    with shop.last.connect() as session:
        session.execute("INSERT INTO orders_customer (email, name) VALUES ('ada@example.com', 'Ada, once more')")
    check_out(3, tmp_path / "project")
    before = shop.dumps()
    outcome = shop.deploy()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back")
    assert outcome.outcomes == {"primary": "rolled_back", "kiosk": "rolled_back", LAST: "failed"}
    error = outcome.report["error"]
    assert (error["database"], error["sqlstate"]) == (LAST, "23505")
    assert error["migration"] == "orders.0006_one_customer_per_email"
    assert error["detail"] == "Key (email)=(ada@example.com) is duplicated."
    assert error["operation"] == "Create constraint one_customer_per_email on model customer"
    file, _, line = error["place"].rpartition(":")
    assert "AddConstraint" in Path(file).read_text().splitlines()[int(line) - 1]
    assert [line["migration"] for line in outcome.named("migration.failed")] == ["0006_one_customer_per_email"]
    # A log goes to places where a customer's row has no business.
    assert "ada@example.com" not in outcome.stderr
    shop.wait_until_alone()
    assert shop.dumps() == before


@pytest.mark.parametrize(
    "deploy",
    [
        pytest.param("expand_contract = false", id="deploy", marks=pytest.mark.long),
        pytest.param('expand_contract = false\ncommit = "phase"', id="phase"),
    ],
)
@pytest.mark.parametrize(
    "note",
    [
        pytest.param(NOTE, id="in transactions"),
        pytest.param(_TWO_COLUMNS_OUTSIDE, id="outside transactions", marks=pytest.mark.long),
    ],
)
def test_a_failure_in_the_second_phase_takes_the_first_one_back(
    deploy: str, note: str, tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    release = {"demo.0002_note": note, "demo.0003_kind": _FAILS_LAST}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        fleet.plan(deploy=deploy)
        before = fleet.dumps(sequences=False)
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.outcomes == {"primary": "rolled_back", "kiosk": "rolled_back", LAST: "failed"}
        assert outcome.report["error"]["migration"] == "demo.0003_kind"
        fleet.wait_until_alone()
        assert fleet.dumps(sequences=False) == before


def test_a_gate_that_fails_changes_no_database(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(shards='gate = ["false"]')
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["error"]["type"]) == (1, "gate_failed")
        assert [line["exit_code"] for line in outcome.named("gate.failed")] == [1]
        assert set(outcome.outcomes.values()) == {"rolled_back"}
        assert fleet.dumps() == before


@pytest.mark.long
def test_a_gate_that_the_system_refuses_to_run_is_told_as_that(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(shards='gate = ["./no-program"]')
        (tmp_path / "no-program").write_text("looks like one")
        (tmp_path / "no-program").chmod(0o755)
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["error"]["type"]) == (1, "gate_failed")
        assert outcome.report["error"]["message"].endswith("./no-program, could not be started: Exec format error")
        assert outcome.named("output.captured") == []


@pytest.mark.long
def test_a_gate_is_told_of_a_broken_pipe_as_in_a_shell(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(shards='gate = ["sh", "-c", "seq 1000000 | head -n 1; kill -USR1 $$"]')
        outcome = fleet.deploy()
        assert [line["line"] for line in outcome.named("output.captured")] == ["1"]
        assert [line["exit_code"] for line in outcome.named("gate.failed")] == [-signal.SIGUSR1]


def test_a_lock_that_is_never_released_is_named_and_ends_the_deploy(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        # Longer than the pause between two looks at who is in the way.
        fleet.plan(deploy='expand_contract = false\nlock_timeout = "1s"\nlock_retries = 1')
        before = fleet.dumps()
        with fleet.last.connect() as holder, holder.transaction():
            holder.execute("SELECT * FROM demo_item")
            outcome = fleet.deploy()
            pid = holder.info.backend_pid
        assert (outcome.exit_code, outcome.report["error"]["sqlstate"]) == (1, "55P03"), outcome.stderr
        assert outcome.report["error"]["blockers"] == [f"pid {pid}"]
        waits = outcome.named("lock.waiting")
        assert waits
        assert all([blocker["pid"] for blocker in line["blockers"]] == [pid] for line in waits)
        assert [(line["database"], line["attempt"]) for line in outcome.named("lock.retry")] == [(LAST, 1)]
        assert fleet.dumps() == before


@pytest.mark.long
def test_a_migration_that_would_break_the_running_release_is_refused_by_name(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_retyped": _RETYPED}) as fleet:
        fleet.plan(deploy="")
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused")
        findings = outcome.report["errors"]
        assert {finding["place"] for finding in findings} == {"primary", "kiosk", LAST}
        assert all(
            "demo.0002_retyped would break the release still running" in finding["message"] for finding in findings
        )
        assert fleet.dumps() == before


@pytest.mark.long
def test_what_cannot_be_undone_is_refused_where_it_would_be_committed_early(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    one_way = migration(
        "migrations.RunPython(forwards)",
        after=[("demo", "0001_item")],
        atomic=False,
        functions=run_python("pass"),
    )
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_one_way": one_way}) as fleet:
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert outcome.exit_code == 3
        assert all("demo.0002_one_way" in finding["message"] for finding in outcome.report["errors"])
        assert fleet.dumps() == before


@pytest.mark.long
def test_a_lock_time_out_in_sql_that_django_defers_is_tried_again_as_a_whole(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    tag = migration(
        "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True)), "
        "('item', models.ForeignKey('demo.item', models.CASCADE))])",
        after=[("demo", "0001_item")],
    )
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_tag": tag}) as fleet:
        fleet.plan(deploy='expand_contract = false\nlock_timeout = "300ms"\nlock_retries = 20')
        with fleet.last.connect() as holder, fleet.running() as run:
            with holder.transaction():
                # In the way of the foreign key, which is made when the migration's operations have ended.
                holder.execute("LOCK TABLE demo_item IN ROW EXCLUSIVE MODE")
                run.wait_for("lock.retry")
            outcome = run.finish()
        assert (outcome.exit_code, set(outcome.outcomes.values())) == (0, {"committed"}), outcome.stderr
        assert all("demo_tag" in text for text in fleet.dumps().values())


@pytest.mark.long
def test_locks_are_said_to_be_held_until_the_commit_and_not_only_until_they_were_prepared(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_note": NOTE}) as fleet:
        fleet.plan(servers='atomicity = "two_phase"')

        outcome = fleet.deploy()

    assert outcome.exit_code == 0, outcome.stderr
    (decided,) = outcome.named("deploy.decided")
    for database in ("primary", LAST):
        (held,) = (line for line in outcome.named("database.prepared") if line["database"] == database)
        (committed,) = (line for line in outcome.named("database.committed") if line["database"] == database)
        waited = datetime.fromisoformat(decided["timestamp"]) - datetime.fromisoformat(held["timestamp"])
        assert committed["lock_hold_ms"] > held["lock_hold_ms"] + waited.total_seconds() * 1000 - 0.1
        reported = [entry["lock_hold_ms"] for entry in outcome.report["databases"] if entry["database"] == database]
        assert reported == [committed["lock_hold_ms"]]
