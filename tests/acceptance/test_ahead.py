"""Indexes that are built concurrently run ahead of the transaction, on every database first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.filled import IMPORTS
from tests.support.postgres_server import PostgresServer
from tests.support.runs import still_running
from tests.support.small_migrations import BUILD, KIND, NOTE, failing, run_python
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_AHEAD = "demo.0002_note"
_SERVERS = ["primary", LAST]
_STRICT = 'expand_contract = false\nminimum_atomicity = "two_phase"'


@pytest.fixture
def fleet(tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer) -> Iterator[Fleet]:
    """Two servers with an index to be built and a column to be added; SQLite's file has nothing to do."""
    release = {_AHEAD: BUILD, "demo.0003_kind": KIND}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as found:
        found.migrate("kiosk", "--fake")
        found.plan(deploy=_STRICT)
        yield found


def _write(fleet: Fleet, migration: str, source: str) -> None:
    app, _, name = migration.partition(".")
    (fleet.directory / "project" / app / "migrations" / f"{name}.py").write_text(source)


@contextmanager
def _used(fleet: Fleet) -> Iterator[None]:
    """Have a client use the table of `primary` all the time, for which the build and the drop of an index wait."""
    with fleet.first.connect() as writer:
        writer.autocommit = False
        writer.execute("UPDATE demo_item SET name = 'tea'")
        yield
        writer.rollback()


def _events(log: list[dict[str, object]]) -> list[tuple[object, object, object]]:
    wanted = {"migration.applied", "migration.started"}
    return [(line["event"], line["migration"], line["database"]) for line in log if line["event"] in wanted]


def test_what_runs_ahead_is_done_on_every_database_before_anything_is_locked(fleet: Fleet) -> None:
    planned = fleet.run("plan")
    outcome = fleet.deploy()

    reasons = {entry["database"]: entry["tier_reason"] for entry in planned.report["databases"]}
    assert all(reasons[name].endswith(f"; ahead of it, outside a transaction: {_AHEAD}") for name in _SERVERS)
    assert outcome.exit_code == 0, outcome.stderr
    tiers = {entry["database"]: entry["tier"] for entry in outcome.report["databases"]}
    applied = {entry["database"]: entry["applied"] for entry in outcome.report["databases"]}
    assert [tiers[name] for name in _SERVERS] == ["two_phase"] * 2
    assert [applied[name] for name in _SERVERS] == [[_AHEAD, "demo.0003_kind"]] * 2
    names = [migration for _event, migration, _database in _events(outcome.log)]
    assert names == ["0002_note"] * 4 + ["0003_kind"] * 4
    dumps = fleet.dumps()
    assert all("demo_item_name" in dumps[name] and "kind" in dumps[name] for name in _SERVERS)


@pytest.mark.long
def test_what_ran_ahead_is_taken_back_where_the_last_phase_fails(fleet: Fleet) -> None:
    _write(fleet, "demo.0003_kind", failing("if editor.connection.alias == 'shard_1': raise ValueError('no')"))
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.report["error"]["message"] == "no"
    unapplied = {entry["database"]: entry["unapplied"] for entry in outcome.report["databases"]}
    assert unapplied["primary"] == ["demo.0003_kind", _AHEAD]
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_what_ran_ahead_is_taken_back_behind_a_prepared_transaction(fleet: Fleet) -> None:
    # Of a transaction with a cursor that outlives it the last server keeps nothing prepared.
    cursor = "editor.connection.cursor().execute('DECLARE kept CURSOR WITH HOLD FOR SELECT 1')"
    _write(fleet, "demo.0003_kind", failing(f"if editor.connection.alias == 'shard_1': {cursor}"))
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["error"]["sqlstate"]) == (1, "0A000"), outcome.stderr
    assert outcome.outcomes["primary"] == "rolled_back"
    unapplied = {entry["database"]: entry["unapplied"] for entry in outcome.report["databases"]}
    assert unapplied["primary"] == ["demo.0003_kind", _AHEAD]
    assert fleet.prepared() == []
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_what_cannot_be_prepared_is_held_open_and_keeps_what_ran_ahead(fleet: Fleet) -> None:
    fleet.plan(deploy="expand_contract = false")
    cursor = "editor.connection.cursor().execute('DECLARE kept CURSOR WITH HOLD FOR SELECT 1')"
    _write(fleet, "demo.0003_kind", failing(cursor))

    outcome = fleet.deploy()

    assert outcome.exit_code == 0, outcome.stderr
    assert {line["tier"] for line in outcome.named("tier.changed")} == {"held_open"}
    built = [line for line in outcome.named("migration.started") if line["migration"] == "0002_note"]
    assert len(built) == 2
    dumps = fleet.dumps()
    assert all("demo_item_name" in dumps[name] and "kind" in dumps[name] for name in _SERVERS)


@pytest.mark.long
def test_code_that_says_so_runs_ahead_and_is_taken_back(fleet: Fleet) -> None:
    fill = "RunPython(forwards, nothing, hints={'smooth_online': True})"
    code = run_python('editor.connection.cursor().execute("UPDATE demo_item SET name = upper(name)")')
    filled = migration(f"migrations.{fill}", after=[("demo", "0001_item")], atomic=False, functions=code)
    _write(fleet, _AHEAD, filled)
    before = fleet.dumps(sequences=False)

    fleet.plan(deploy=_STRICT, shards='gate = ["false"]')
    failed = fleet.deploy()
    assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
    applied = [line for line in failed.named("migration.applied") if line["direction"] == "forwards"]
    assert [line["migration"] for line in applied] == ["0002_note"] * 2 + ["0003_kind"] * 2
    assert fleet.dumps(sequences=False) == before

    fleet.plan(deploy=_STRICT)
    assert fleet.deploy().exit_code == 0
    dumps = fleet.dumps()
    assert all("KITE" in dumps[name] for name in _SERVERS)


@pytest.mark.long
def test_a_column_is_filled_ahead_and_stays_filled(fleet: Fleet) -> None:
    fill = "Backfill('Item', {'name': Upper('name')}, where=~Q(name=Upper('name')))"
    _write(fleet, _AHEAD, migration(fill, after=[("demo", "0001_item")], atomic=False, functions=IMPORTS))
    before = fleet.dumps(sequences=False)

    fleet.plan(deploy=_STRICT, shards='gate = ["false"]')
    failed = fleet.deploy()

    assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr
    assert {name: fleet.dumps(sequences=False)[name] for name in _SERVERS} == {
        name: before[name].replace("kite", "KITE") for name in _SERVERS
    }

    fleet.plan(deploy=_STRICT)
    outcome = fleet.deploy()

    assert outcome.exit_code == 0, outcome.stderr
    tiers = {entry["database"]: entry["tier"] for entry in outcome.report["databases"]}
    assert [tiers[name] for name in _SERVERS] == ["two_phase"] * 2
    names = [migration for _event, migration, _database in _events(outcome.log)]
    assert names == ["0002_note"] * 4 + ["0003_kind"] * 4
    dumps = fleet.dumps()
    assert all("KITE" in dumps[name] and "kind" in dumps[name] for name in _SERVERS)

    fleet.plan(deploy="expand_contract = false")
    back = fleet.run("rollback")

    assert (back.exit_code, back.report["outcome"]) == (0, "committed"), back.stderr
    dumps = fleet.dumps()
    assert all("KITE" in dumps[name] and "kind" not in dumps[name] for name in _SERVERS)


@pytest.mark.long
def test_what_comes_after_the_transaction_cannot_run_ahead(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> None:
    after = "demo.0003_build"
    release = {"demo.0002_note": NOTE, after: BUILD.replace("0001_item", "0002_note")}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        fleet.migrate("kiosk", "--fake")
        fleet.plan(deploy=_STRICT)
        before = fleet.dumps()

        outcome = fleet.deploy()

        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
        told = [error["message"] for error in outcome.report["errors"]]
        assert all(f"{after} cannot run in a transaction" in message for message in told)
        assert len(told) == 2
        assert fleet.dumps() == before


def test_what_ran_ahead_of_a_committed_phase_is_taken_back_with_all_of_it(fleet: Fleet) -> None:
    fleet.plan(deploy=f'{_STRICT}\ncommit = "phase"', shards='gate = ["false"]')
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.outcomes["primary"] == "rolled_back"
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_an_index_built_ahead_on_several_databases_is_taken_back_in_transactions_that_are_held(fleet: Fleet) -> None:
    fleet.plan(deploy=f'{_STRICT}\ncommit = "phase"')
    plan = fleet.directory / "deploy.toml"
    text = plan.read_text()
    phases = '[[phases]]\nname = "servers"\ndatabases = ["primary", "shards:*"]\n'
    phases += '[[phases]]\nname = "file"\ndatabases = ["kiosk"]\ngate = ["false"]\n'
    plan.write_text(text[: text.index("[[phases]]")] + phases)
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert [outcome.outcomes[name] for name in _SERVERS] == ["rolled_back"] * 2
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_an_index_that_sql_builds_concurrently_is_taken_back_with_its_phase(fleet: Fleet) -> None:
    sql = "'CREATE INDEX CONCURRENTLY by_sql ON demo_item (name)', 'DROP INDEX CONCURRENTLY by_sql'"
    build = f"migrations.RunSQL({sql})"
    _write(fleet, _AHEAD, migration(build, after=[("demo", "0001_item")], atomic=False))
    fleet.plan(deploy='expand_contract = false\ncommit = "phase"', shards='gate = ["false"]')
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert fleet.dumps(sequences=False) == before


@pytest.mark.long
def test_an_index_half_built_that_cannot_be_dropped_yet_is_told_of_in_time_and_dropped_later(fleet: Fleet) -> None:
    fleet.plan(deploy=f'{_STRICT}\nlock_timeout = "200ms"\nlock_retries = 1\nstatement_timeout = "5s"')
    before = fleet.dumps(sequences=False)
    with _used(fleet):
        with fleet.running() as run:
            run.wait_for("lock.waiting", database="primary")
            for worker in run.workers():
                worker.kill()
            run.process.kill()
        fleet.plan(deploy=f'{_STRICT}\nlock_timeout = "200ms"\nlock_retries = 1\nsettle_timeout = "2s"')

        waiting = fleet.run("recover")

    assert (waiting.exit_code, waiting.report["outcome"]) == (4, "needs_operator"), waiting.stderr
    assert waiting.outcomes["primary"] == "in_doubt"
    told = "the index demo_item_name could not be dropped: it has waited for transactions that use its table for 0.2 s"
    assert waiting.report["error"]["message"].endswith(told)
    assert fleet.run_printed(waiting).report["outcome"] == "rolled_back"
    assert fleet.dumps(sequences=False) == before
    assert fleet.deploy().report["outcome"] == "committed"


@pytest.mark.long
def test_a_worker_whose_way_back_waits_for_others_ends_soon_after_its_coordinator(fleet: Fleet) -> None:
    fleet.plan(deploy=f'{_STRICT}\nlock_timeout = "100s"')
    before = fleet.dumps(sequences=False)
    with _used(fleet), fleet.running() as run:
        run.wait_for("lock.waiting", database="primary")
        workers = run.workers()
        run.process.kill()
        assert not still_running(workers)

    assert fleet.run("recover").exit_code == 0
    assert fleet.dumps(sequences=False) == before
    assert fleet.deploy().exit_code == 0
