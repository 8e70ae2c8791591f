"""What is committed step by step, or ahead of a transaction, when its machine is lost: another one goes on with it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.support.leases import until
from tests.support.machines import FleetOfMachines, Machine, fleet_of_machines
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runs import Outcome, Running
from tests.support.small_migrations import BUILD, ITEM
from tests.support.small_project import migration

pytestmark = [pytest.mark.timeout(240), pytest.mark.long]

_FIRST: Final = [("demo", "0001_item")]
_SECOND: Final = [("demo", "0002_note")]
_ADDS: Final = "migrations.AddField('item', 'note', models.CharField(max_length=9, default=''))"
# Each ends when the test lets it, and a row tells how often it was run.
_CODE: Final = """
import os
import time


def wait_for(name):
    def wait(apps, editor):
        while not os.path.exists(os.path.join(os.environ["SMALL_GO"], name)):
            time.sleep(0.02)
        if os.path.exists(os.path.join(os.environ["SMALL_GO"], f"no {name}")):
            raise ValueError(f"no {name}")
        apps.get_model("demo", "Item").objects.create(name=name)
    return wait


def forget(name):
    def forget(apps, editor):
        apps.get_model("demo", "Item").objects.filter(name=name).delete()
    return forget
"""
_RAN: Final = "SELECT name, count(*) FROM demo_item GROUP BY name ORDER BY name"
_INDEXES: Final = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass('demo_item_name')"
_LEFT: Final = "SELECT count(*) FROM smooth_migrations_journal"


def _waits(name: str) -> str:
    return f"migrations.RunPython(wait_for('{name}'), forget('{name}'))"


# What is about to be written into the queue waits for whoever holds a lock.
_WAITING: Final = "FROM pg_locks WHERE locktype = 'advisory' AND (classid, objid) = (0, 42) AND NOT granted"
_HELD_UP: Final = f"SELECT count(*)::int {_WAITING}"
_NEVER_SAID: Final = f"SELECT pg_terminate_backend(pid) {_WAITING}"


def _hold_up(condition: str) -> str:
    return f"""
        CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF {condition} THEN PERFORM pg_advisory_xact_lock_shared(42); END IF;
            RETURN NEW; END $$;
        CREATE TRIGGER hold_up BEFORE INSERT ON smooth_fleet_message FOR EACH ROW EXECUTE FUNCTION hold_up();
    """


_HOLD_UP: Final = {
    "prepare": _hold_up("NEW.side = 'coordinator' AND NEW.body LIKE '%prepare%'"),
    "prepared": _hold_up("NEW.side = 'worker' AND EXISTS (SELECT FROM pg_prepared_xacts)"),
}
_ONE: Final = {"demo.0001_item": ITEM, "demo.0002_note": migration(_ADDS, after=_FIRST)}
_STEPS: Final = {
    "demo.0001_item": ITEM,
    "demo.0002_note": migration(_ADDS, _waits("second"), functions=_CODE, after=_FIRST),
    "demo.0003_wait": migration(_waits("third"), functions=_CODE, after=_SECOND),
}
_AHEAD: Final = {
    "demo.0001_item": ITEM,
    "demo.0002_note": BUILD,
    "demo.0003_wait": migration(_ADDS, _waits("third"), functions=_CODE, after=_SECOND),
}


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server for the database and the queue."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture(autouse=True)
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a file lets the migration of its name end."""
    monkeypatch.setenv("SMALL_GO", str(tmp_path))
    return tmp_path


@contextmanager
def _fleet(server: PostgresServer, directory: Path, release: Mapping[str, str], deploy: str = "") -> Iterator[Any]:
    """Yield a fleet of two machines, over one database, and these by name."""
    with fleet_of_machines(directory, [server], 1, {**release}) as fleet:
        fleet.plan(deploy=deploy)
        if deploy:
            path = fleet.many.directory / "deploy.toml"
            path.write_text(path.read_text().replace('minimum_atomicity = "two_phase"\n', ""))
        machines = [fleet.start("--concurrency", "1") for _ in range(2)]
        yield fleet, {machine.name: machine for machine in machines}


def _compensated(server: PostgresServer, directory: Path) -> Any:  # noqa: ANN401 - a context of `_fleet`
    return _fleet(server, directory, _STEPS, deploy='atomicity = "compensated"')


def _at_work(run: Running, machines: Mapping[str, Machine], name: str) -> Machine:
    return machines[str(run.wait_for("migration.started", migration=name)["worker"])]


def _assert_done_once(fleet: FleetOfMachines, outcome: Outcome, *ran: str) -> None:
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    (entry,) = outcome.report["databases"]
    assert entry["applied"] == ["demo.0002_note", "demo.0003_wait"]
    assert fleet.many.new() == 1
    assert fleet.many.rows(_RAN) == [[(name, 1) for name in ran]]
    assert fleet.many.rows(_LEFT) == [[(0,)]]
    assert not fleet.many.prepared()


def _assert_goes_back(fleet: FleetOfMachines, before: list[str]) -> None:
    back = fleet.many.run("rollback")
    assert back.exit_code == 0, back.stderr
    assert fleet.many.dumps(sequences=False) == before


def test_what_a_lost_machine_has_committed_another_one_goes_on_from(
    server: PostgresServer, tmp_path: Path, go: Path
) -> None:
    with _compensated(server, tmp_path) as (fleet, machines):
        before = fleet.many.dumps(sequences=False)
        (go / "second").touch()
        with fleet.many.running() as run:
            _at_work(run, machines, "0003_wait").lose()
            told = run.wait_for("database.begun_anew")
            (go / "third").touch()
            outcome = run.finish()

        assert told["kept"] == 1
        applied = [line["migration"] for line in [*run.seen, *outcome.log] if line["event"] == "migration.applied"]
        assert sorted({*applied}) == ["0002_note", "0003_wait"]
        _assert_done_once(fleet, outcome, "second", "third")
        _assert_goes_back(fleet, before)


@pytest.mark.parametrize("unsaid", ["prepare", "prepared"])
def test_what_is_lost_on_the_way_to_its_prepare_is_done_once_more(
    server: PostgresServer, tmp_path: Path, unsaid: str
) -> None:
    with _fleet(server, tmp_path, _ONE) as (fleet, machines), fleet.queue.connect() as holder:
        (database,) = fleet.many.databases
        holder.execute(_HOLD_UP[unsaid])
        holder.execute("SELECT pg_advisory_lock(42)")
        with fleet.many.running() as run:
            lost = machines[run.wait_for("migration.applied", migration="0002_note")["worker"]]
            # What is about to be said waits for the test's lock.
            until(lambda: holder.execute(_HELD_UP).fetchone() == (1,))
            assert bool(database.server.prepared(database.name)) is (unsaid == "prepared")
            lost.lose()
            if unsaid == "prepared":
                holder.execute(_NEVER_SAID)
            holder.execute("SELECT pg_advisory_unlock(42)")
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        (anew,) = outcome.named("database.begun_anew")
        assert anew["worker"] == lost.name
        assert fleet.many.new() == 1
        assert not fleet.many.prepared()


def test_what_a_lost_machine_has_committed_unheard_is_taken_back_and_done_anew(
    server: PostgresServer, tmp_path: Path, go: Path
) -> None:
    with _compensated(server, tmp_path) as (fleet, machines):
        before = fleet.many.dumps(sequences=False)
        with fleet.many.running() as run:
            deaf = _at_work(run, machines, "0002_note")
            psutil.Process(deaf.process.pid).suspend()
            (go / "second").touch()
            until(lambda: fleet.many.new() == 1)
            deaf.lose()
            told = run.wait_for("database.begun_anew")
            (go / "third").touch()
            outcome = run.finish()

        assert told["kept"] == 0
        _assert_done_once(fleet, outcome, "second", "third")
        _assert_goes_back(fleet, before)


def test_a_machine_that_wakes_up_amid_steps_changes_nothing(server: PostgresServer, tmp_path: Path, go: Path) -> None:
    with _compensated(server, tmp_path) as (fleet, machines):
        (go / "second").touch()
        with fleet.many.running() as run:
            frozen = _at_work(run, machines, "0003_wait")
            family = frozen.freeze()
            run.wait_for("database.begun_anew")
            (go / "third").touch()
            outcome = run.finish()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        after = fleet.many.dumps()

        for process in family:
            process.resume()
        until(lambda: not frozen.workers())

        assert fleet.many.dumps() == after
        assert fleet.many.rows(_RAN) == [[("second", 1), ("third", 1)]]


def test_what_fails_on_the_next_machine_takes_back_what_the_lost_one_had_committed(
    server: PostgresServer, tmp_path: Path, go: Path
) -> None:
    with _compensated(server, tmp_path) as (fleet, machines):
        before = fleet.many.dumps(sequences=False)
        (go / "second").touch()
        with fleet.many.running() as run:
            _at_work(run, machines, "0003_wait").lose()
            run.wait_for("database.begun_anew")
            (go / "no third").touch()
            (go / "third").touch()
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.report["error"]["message"] == "no third"
        assert fleet.many.dumps(sequences=False) == before
        assert fleet.many.rows(_LEFT) == [[(0,)]]


def test_what_ran_ahead_stays_where_the_machine_of_its_transaction_is_lost(
    server: PostgresServer, tmp_path: Path, go: Path
) -> None:
    with _fleet(server, tmp_path, _AHEAD) as (fleet, machines):
        with fleet.many.running() as run:
            _at_work(run, machines, "0003_wait").lose()
            run.wait_for("database.begun_anew")
            (go / "third").touch()
            outcome = run.finish()

        assert {entry["tier"] for entry in outcome.report["databases"]} == {"two_phase"}
        assert fleet.many.rows(_INDEXES) == [[(True,)]]
        _assert_done_once(fleet, outcome, "third")


def test_an_index_that_a_lost_machine_was_building_is_built_anew(
    server: PostgresServer, tmp_path: Path, go: Path
) -> None:
    (go / "third").touch()
    with _fleet(server, tmp_path, _AHEAD) as (fleet, machines):
        (database,) = fleet.many.databases
        with database.connect() as writer, fleet.many.running() as run:
            writer.autocommit = False
            writer.execute("LOCK TABLE demo_item IN ROW EXCLUSIVE MODE")
            lost = _at_work(run, machines, "0002_note")
            until(lambda: fleet.many.rows(_INDEXES) == [[(False,)]])
            lost.lose()
            run.wait_for("database.begun_anew")
            writer.rollback()
            outcome = run.finish()

        assert fleet.many.rows(_INDEXES) == [[(True,)]]
        _assert_done_once(fleet, outcome, "third")


def test_where_no_machine_is_left_what_was_committed_goes_back_once_there_is_one(
    server: PostgresServer, tmp_path: Path, go: Path
) -> None:
    with _compensated(server, tmp_path) as (fleet, machines):
        before = fleet.many.dumps(sequences=False)
        (go / "second").touch()
        with fleet.many.running() as run:
            run.wait_for("migration.started", migration="0003_wait")
            for machine in machines.values():
                machine.lose()
            outcome = run.finish()
        assert (outcome.exit_code, outcome.report["outcome"]) == (4, "needs_operator"), outcome.stderr
        assert outcome.named("database.begun_anew") == []
        fleet.start("--concurrency", "1")

        recovered = fleet.many.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert fleet.many.dumps(sequences=False) == before
