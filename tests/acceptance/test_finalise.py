"""`finalise`: what deploys have held back is done on every database or on none, once the release before is gone."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_HELD = "demo.0002_next: drop column demo_item.name"
_DEFAULT = "demo.0002_next: drop the default of demo_item.size"
_NEXT = migration(
    "migrations.RemoveField('item', 'name')",
    "migrations.AddField('item', 'size', models.IntegerField(default=7))",
    after=[("demo", "0001_item")],
)
_SOON = '[finalise]\nbake_time = "0s"'


def _plan(fleet: Fleet, finalise: str = _SOON, *, servers: str = "") -> None:
    fleet.plan(deploy="expand_contract = true", servers=servers)
    plan = fleet.directory / "deploy.toml"
    plan.write_text(f"{plan.read_text()}\n{finalise}\n")


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    with small_fleet(tmp_path, pg_server, second_pg_server, {"demo.0002_next": _NEXT}) as fleet:
        _plan(fleet)
        yield fleet


def _columns(fleet: Fleet) -> set[tuple[str, ...]]:
    found = set()
    for database in (fleet.first, fleet.last):
        with database.connect() as session:
            rows = session.execute(
                "SELECT column_name || coalesce(' default ' || column_default, '') || ' ' || is_nullable "
                "FROM information_schema.columns WHERE table_name = 'demo_item' AND column_name <> 'id' ORDER BY 1"
            ).fetchall()
        found.add(tuple(text for (text,) in rows))
    return found


def test_what_a_deploy_holds_back_is_done_by_finalise_everywhere(fleet: Fleet) -> None:
    planned = fleet.run("plan").report["databases"][0]["migrations"]
    assert [(entry["expand"], entry["contract"]) for entry in planned] == [
        (
            ["Alter field name on item", "Add field size to item"],
            ["drop column demo_item.name", "drop the default of demo_item.size"],
        )
    ]
    deployed = fleet.deploy()
    assert (deployed.exit_code, deployed.report["outcome"]) == (0, "committed"), deployed.stderr
    assert all(entry["contract_pending"] == [_HELD, _DEFAULT] for entry in deployed.report["databases"])
    assert {line["database"] for line in deployed.named("contract.queued")} == {"primary", "kiosk", LAST}
    assert _columns(fleet) == {("name YES", "size default 7 NO")}
    # Both releases at work.
    fleet.execute("INSERT INTO demo_item (name) VALUES ('old')")
    fleet.execute("INSERT INTO demo_item (size) VALUES (9)")
    status = fleet.run("status").report["databases"]
    assert all(entry["contract_pending"] == [_HELD, _DEFAULT] and entry["pending"] == [] for entry in status)

    done = fleet.run("finalise")

    assert (done.exit_code, done.report["outcome"]) == (0, "committed"), done.stderr
    assert all(entry["contract_pending"] == [] for entry in done.report["databases"])
    assert [len(done.named(f"finalise.{name}")) for name in ("started", "finished", "refused")] == [1, 1, 0]
    assert {line["database"] for line in done.named("contract.applied")} == {"primary", "kiosk", LAST}
    assert _columns(fleet) == {("size NO",)}
    assert "varchar(40)" not in fleet.dumps()["kiosk"]
    assert fleet.run("finalize").report["outcome"] == "nothing_to_do"
    refused = fleet.run("rollback")
    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused")
    assert "was finalised by" in refused.report["error"]["message"]


def test_status_says_when_it_is_due_and_what_blocks_it(fleet: Fleet) -> None:
    _plan(fleet, '[finalise]\nbake_time = "1h"\nforbid_sessions = ["blue-*"]')
    deployed = fleet.deploy()
    assert deployed.exit_code == 0
    begun, run_id = datetime.fromisoformat(deployed.report["started_at"]), deployed.report["run_id"]

    status = fleet.run("status").report["databases"]

    [[(run, due, blocked)], *others] = [[(*each.values(),) for each in entry["contract_due"]] for entry in status]
    assert (run, blocked, others) == (run_id, [], [[(run, due, blocked)]] * 2)
    assert timedelta(hours=1) < datetime.fromisoformat(due) - begun < timedelta(hours=1, minutes=2)
    assert fleet.told("status").count(f"  held back by {run_id}, due at 2") == 3

    next_release = fleet.directory / "project/demo/migrations/0002_next.py"
    next_release.write_text(next_release.read_text() + "\n# changed")
    with psycopg.connect(fleet.first.dsn, application_name="blue-1"):
        told = fleet.told("status")
    assert told.count("blocked: primary: a session of 'blue-1' is connected") == 3
    assert told.count("blocked: the file of demo.0002_next has been changed since its expand half ran") == 3
    assert fleet.run("finalise").report["outcome"] == "not_due"


def test_a_plan_without_a_database_that_waits_does_none(fleet: Fleet) -> None:
    assert fleet.deploy().exit_code == 0
    before = fleet.dumps(sequences=False)
    plan = fleet.directory / "deploy.toml"
    text = plan.read_text()
    start, _, rest = text.partition("[databases.shards]")
    phases = rest[rest.index("[[phases]]") :].replace('["shards:*"]', '["kiosk"]').replace(', "kiosk"', "")
    plan.write_text(start + phases)

    refused = fleet.run("finalise")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert f"moved {LAST}, not in this plan" in refused.report["error"]["message"]
    status = fleet.run("status").report["databases"]
    assert all(f"moved {LAST}, not in this plan" in entry["contract_due"][0]["blocked_by"][0] for entry in status)
    assert fleet.dumps(sequences=False) == before


# What changes a table takes so long at least.
_SLOW = """
    CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); END';
    CREATE EVENT TRIGGER slow ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION slow();
"""


@pytest.mark.long
def test_its_locks_are_said_to_be_held_from_the_first_one_to_the_commit(fleet: Fleet) -> None:
    assert fleet.deploy().exit_code == 0
    with fleet.first.connect() as session:
        session.execute(_SLOW)

    done = fleet.run("finalise")

    assert done.exit_code == 0, done.stderr
    (held_ms,) = (each["lock_hold_ms"] for each in done.report["databases"] if each["database"] == "primary")
    assert held_ms >= 2000


@pytest.mark.long
def test_a_rollback_before_it_gives_the_old_schema_back(fleet: Fleet) -> None:
    before = fleet.dumps(sequences=False)
    assert fleet.deploy().exit_code == 0

    taken = fleet.run("rollback")
    assert taken.exit_code == 0, taken.report
    assert all(entry["contract_pending"] == [] for entry in taken.report["databases"])
    assert fleet.dumps(sequences=False) == before
    assert fleet.run("finalise").report["outcome"] == "nothing_to_do"


_KINDS = migration(
    "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True))])",
    "migrations.AddField('item', 'kind', models.ForeignKey('demo.Kind', models.CASCADE, null=True))",
    "migrations.AddField('item', 'kinds', models.ManyToManyField('demo.Kind', related_name='+'))",
    "migrations.AddField('item', 'code', models.CharField(max_length=9, null=True, unique=True))",
    after=[("demo", "0001_item")],
)
# What a deploy takes away, and what the new release then does that going back could not take.
_GONE = {
    "no value": (["RemoveField('item', 'name')"], "INSERT INTO demo_item (code) VALUES ('n')", "name is NULL"),
    "foreign key": (
        ["RemoveField('item', 'kind')"],
        "DELETE FROM demo_item_kinds; DELETE FROM demo_kind",
        "kind_id refers",
    ),
    "many to many": (
        ["RemoveField('item', 'kinds')"],
        "UPDATE demo_item SET kind_id = NULL; DELETE FROM demo_kind",
        "kind_id refers",
    ),
    "model": (
        ["RemoveField('item', 'kinds')", "DeleteModel('Item')"],
        "DELETE FROM demo_item_kinds; DELETE FROM demo_kind",
        "kind_id refers",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case == "model" else pytest.mark.long) for case in _GONE]
)
def test_a_rollback_tells_the_rows_that_it_could_not_take_and_deletes_them_if_told_so(
    fleet: Fleet, tmp_path: Path, case: str
) -> None:
    operations, statements, told = _GONE[case]
    migrations = tmp_path / "project" / "demo" / "migrations"
    (migrations / "0002_next.py").write_text(_KINDS)
    assert fleet.deploy().exit_code == 0
    assert fleet.run("finalise").exit_code == 0
    fleet.execute("INSERT INTO demo_kind (id) VALUES (1); UPDATE demo_item SET kind_id = 1")
    fleet.execute("INSERT INTO demo_item_kinds (item_id, kind_id) VALUES (1, 1)")
    last = migration(*(f"migrations.{operation}" for operation in operations), after=[("demo", "0002_next")])
    (migrations / "0003_last.py").write_text(last)
    assert fleet.deploy().exit_code == 0
    fleet.execute(statements)
    before = fleet.dumps(sequences=False)

    refused = fleet.run("rollback")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert all(
        f"{told}" in finding["message"] and "(1 row of" in finding["message"] for finding in refused.report["errors"]
    )
    assert fleet.dumps(sequences=False) == before
    taken = fleet.run("rollback", "--discard-data")
    assert (taken.exit_code, taken.report["outcome"]) == (0, "committed"), taken.stderr
    fleet.execute("INSERT INTO demo_kind (id) VALUES (2)")
    fleet.execute("INSERT INTO demo_item (name, kind_id) VALUES ('again', 2)")


@pytest.mark.long
def test_a_rollback_does_not_cut_off_what_the_new_release_has_written(fleet: Fleet, tmp_path: Path) -> None:
    migrations = tmp_path / "project" / "demo" / "migrations"
    (migrations / "0002_next.py").write_text(_KINDS)
    assert fleet.deploy().exit_code == 0
    assert fleet.run("finalise").exit_code == 0
    wider = "migrations.AlterField('item', 'code', models.CharField(max_length=19, default='?', unique=True))"
    (migrations / "0003_last.py").write_text(migration(wider, after=[("demo", "0002_next")]))
    deployed = fleet.deploy()
    assert all(
        entry["contract_pending"] == ["demo.0003_last: alter demo_item.code: NOT NULL"]
        for entry in deployed.report["databases"]
    )
    fleet.execute("INSERT INTO demo_item (name, code) VALUES ('long', 'fifteen letters')")
    before = fleet.dumps(sequences=False)

    refused = fleet.run("rollback")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused"), refused.stderr
    assert "the values of code would be cut off (1 row of demo_item)" in refused.report["errors"][0]["message"]
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_it_is_not_due_before_the_bake_time(fleet: Fleet) -> None:
    _plan(fleet, '[finalise]\nbake_time = "1h"')
    fleet.deploy()
    before = fleet.dumps()

    early = fleet.run("finalise")

    assert (early.exit_code, early.report["outcome"]) == (0, "not_due")
    [line] = early.named("finalise.not_due")
    assert line["due_at"] > line["timestamp"][:19]
    assert fleet.dumps() == before


def test_it_waits_for_the_sessions_of_the_release_before(fleet: Fleet) -> None:
    _plan(fleet, f'{_SOON}\nforbid_sessions = ["shop-v1*"]')
    fleet.deploy()
    before = fleet.dumps()
    with psycopg.connect(fleet.last.dsn, application_name="shop-v1-web"):
        refused = fleet.run("finalise")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused")
    assert [finding["place"] for finding in refused.report["errors"]] == [LAST]
    assert refused.named("finalise.refused")
    assert fleet.dumps() == before
    assert fleet.run("finalise").report["outcome"] == "committed"


def test_it_waits_for_a_session_on_a_database_that_holds_nothing_back(
    pg_server: PostgresServer, tmp_path: Path
) -> None:
    release = {
        "demo.0001_item": ITEM,
        "demo.0002_next": migration("migrations.RemoveField('item', 'name')", after=[("demo", "0001_item")]),
    }
    with many_databases(tmp_path, [pg_server], 3, release) as many:
        _hold_back_on_the_first(many, 'bake_time = "0s"\nforbid_sessions = ["shop-v1*"]')
        assert many.run("deploy").exit_code == 0
        before = many.dumps()
        with psycopg.connect(many.databases[2].dsn, application_name="shop-v1-web"):
            refused = many.run("finalise")

        assert (refused.exit_code, refused.report["outcome"]) == (3, "refused")
        assert [finding["place"] for finding in refused.report["errors"]] == ["rest:shard_2"]
        assert many.dumps() == before
        assert many.run("finalise").report["outcome"] == "committed"


_FIRST = '[databases.first]\nproject = "one"\nalias = "shard_0"\nexpand_contract = true\n'


def _hold_back_on_the_first(many: ManyDatabases, finalise: str) -> None:
    plan = many.directory / "deploy.toml"
    text = plan.read_text()
    for old, new in (
        (
            '[databases.shards]\nproject = "one"\naliases = "shard_*"\n',
            '[databases.rest]\nproject = "one"\naliases = "shard_[12]"\n' + _FIRST,
        ),
        ('["shards:*"]', '["first", "rest:*"]'),
    ):
        assert old in text
        text = text.replace(old, new)
    plan.write_text(f"{text}\n[finalise]\n{finalise}\n")


@pytest.mark.long
@pytest.mark.parametrize("gate", ["false", "no-such-command"])
def test_its_gate_refuses(fleet: Fleet, gate: str) -> None:
    _plan(fleet, f'{_SOON}\ngate = ["{gate}"]')
    fleet.deploy()
    before = fleet.dumps()

    refused = fleet.run("finalise")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused")
    assert fleet.dumps() == before


def test_one_database_that_cannot_keeps_all_as_they_are(fleet: Fleet, tmp_path: Path) -> None:
    unique = migration(
        "migrations.AlterField('item', 'name', models.CharField(max_length=40, unique=True))",
        after=[("demo", "0001_item")],
    )
    (tmp_path / "project" / "demo" / "migrations" / "0002_next.py").write_text(unique)
    assert fleet.deploy().exit_code == 0
    with fleet.last.connect() as session:
        session.execute("INSERT INTO demo_item (name) VALUES ('kite')")
    before = fleet.dumps()

    refused = fleet.run("finalise")

    assert (refused.exit_code, refused.report["outcome"]) == (3, "refused")
    [finding] = refused.report["errors"]
    assert finding["place"] == LAST
    assert "demo_item.name is the same in several rows: 1 row (such as kite)" in finding["message"]
    assert fleet.dumps() == before


@pytest.mark.long
def test_a_later_deploy_leaves_alone_what_is_held_back_or_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    fleet.deploy()
    migrations = tmp_path / "project" / "demo" / "migrations"
    third = migrations / "0003_more.py"
    third.write_text(
        migration("migrations.AddField('item', 'extra', models.IntegerField(null=True))", after=[("demo", "0002_next")])
    )
    assert fleet.deploy().exit_code == 0
    assert _columns(fleet) == {("extra YES", "name YES", "size default 7 NO")}
    assert re.search(r'"?name"? (varchar|character varying)\(40\)', fleet.dumps()["kiosk"])

    touching = migration("migrations.RemoveField('item', 'size')", after=[("demo", "0003_more")])
    (migrations / "0004_touch.py").write_text(touching)
    refused = fleet.deploy()
    assert refused.exit_code == 3
    assert all(_DEFAULT in finding["message"] for finding in refused.report["errors"])

    assert fleet.run("finalise").exit_code == 0
    assert fleet.deploy().exit_code == 0
