"""Machines of a fleet among wrong addresses, nonsense, second signals and what killed ones have left behind."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.leases import until
from tests.support.machines import FleetOfMachines, fleet_of_machines
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.processes import kill_family
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(180)

_COUNT: Final = 2
_ITEM: Final = ("demo", "0001_item")
_NOTE: Final = ("demo", "0002_note")
_WORD: Final = "open-sesame-9"
_ADDS: Final = "migrations.AddField('item', 'note', models.CharField(max_length=9, default=''))"
# It ends when the test lets it.
_WAITS: Final = """
import os
import time


def wait(apps, editor):
    while not os.path.exists(os.environ["SMALL_GO"]):
        time.sleep(0.02)
"""
_WAITING: Final = "migrations.RunPython(wait, migrations.RunPython.noop)"
_TELLS: Final = """
import os


def tell(apps, editor):
    print("the key is", os.environ["SHOP_KEY"])
    raise ValueError("no such key: " + os.environ["SHOP_KEY"])
"""
# What is deleted when a run ends is kept here.
_KEEP: Final = """
    CREATE TABLE kept (session text, body text);
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO kept VALUES (NEW.session, NEW.body); RETURN NEW; END $$;
    CREATE TRIGGER keep BEFORE INSERT ON smooth_fleet_message FOR EACH ROW EXECUTE FUNCTION keep();
"""
# What is said once a turn on a database has begun is not written down.
_REFUSE: Final = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the disk is full'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON smooth_fleet_message FOR EACH ROW
        WHEN (NEW.body LIKE '%leased%') EXECUTE FUNCTION refuse();
"""
_TAKE_NONE: Final = """
    CREATE FUNCTION take_none() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'the disk is full'; END $$;
    CREATE TRIGGER take_none BEFORE INSERT ON procrastinate_jobs FOR EACH ROW EXECUTE FUNCTION take_none();
"""
_INTRUDE: Final = """
    INSERT INTO smooth_fleet_message
    SELECT session, side, max(seq) + 1, %s FROM smooth_fleet_message WHERE side = %s GROUP BY session, side
"""
# As if the queue's server had lost, in a crash, that these were taken up.
_GIVE_AGAIN: Final = "UPDATE procrastinate_jobs SET status = 'todo', worker_id = NULL WHERE status = 'doing'"
_LEFT: Final = """
    SELECT (SELECT count(*) FROM smooth_fleet_session), (SELECT count(*) FROM smooth_fleet_message),
           (SELECT count(*) FROM procrastinate_jobs), (SELECT count(*) FROM smooth_fleet_machine)
"""


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server for the databases and the queue."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@contextmanager
def _fleet(
    server: PostgresServer, directory: Path, operation: str, functions: str, queue_on: PostgresServer | None = None
) -> Iterator[FleetOfMachines]:
    change = migration(_ADDS, operation, functions=functions, after=[_ITEM])
    release = {"demo.0001_item": ITEM, "demo.0002_note": change}
    with fleet_of_machines(directory, [server], _COUNT, release, queue_on) as fleet:
        yield fleet


@pytest.fixture
def waiting(server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetOfMachines]:
    """A fleet whose migrations end once there is a file `go`."""
    monkeypatch.setenv("SMALL_GO", str(tmp_path / "go"))
    with _fleet(server, tmp_path, _WAITING, _WAITS) as fleet:
        yield fleet


@pytest.mark.parametrize("command", ["worker", "deploy"])
def test_a_queue_that_lets_nobody_in_is_named_at_once(
    waiting: FleetOfMachines, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("QUEUE_WORD", _WORD)
    plan = waiting.many.directory / "deploy.toml"
    fleet = plan.read_text().replace(
        'queue_url = "postgresql://postgres@', 'queue_url = "postgresql://ada:${QUEUE_WORD}@'
    )
    plan.write_text(fleet)

    outcome = waiting.many.run(command)

    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    assert outcome.report["error"]["message"] == 'the queue\'s database: role "ada" does not exist'
    assert _WORD not in outcome.stdout + outcome.stderr
    assert [line["level"] for line in outcome.log if line["level"] != "info"] == []


def test_a_queue_that_takes_no_job_says_why(waiting: FleetOfMachines) -> None:
    waiting.start()
    with waiting.queue.connect() as session:
        session.execute(_TAKE_NONE)

    outcome = waiting.many.run("check")

    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    assert outcome.report["error"]["message"] == "the queue: the disk is full"


def test_who_may_make_no_tables_uses_those_that_are_there(waiting: FleetOfMachines) -> None:
    waiting.start().drain()
    with waiting.queue.connect() as session:
        session.execute("DROP ROLE IF EXISTS bob")
        session.execute("CREATE ROLE bob LOGIN")
        session.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        session.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO bob")
        session.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO bob")
    plan = waiting.many.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('queue_url = "postgresql://postgres@', 'queue_url = "postgresql://bob@'))

    machine = waiting.start()

    assert machine.drain() == 0
    with waiting.queue.connect() as session:
        session.execute("DROP OWNED BY bob")
        session.execute("DROP ROLE bob")


@pytest.mark.long
@pytest.mark.parametrize("side", ["coordinator", "worker"])
@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"asked","line":5,"answers":true}',
        '{"kind":"asked","line":"\\ud800","answers":true}',
        '{"kind":"said","line":5}',
        '{"kind":"said","line":"\\ud800"}',
        "[" * 9000,
    ],
    ids=lambda text: text[:40],
)
def test_nonsense_ends_the_session_in_which_it_is_said_and_nothing_else(
    waiting: FleetOfMachines, tmp_path: Path, side: str, text: str
) -> None:
    machine = waiting.start("--concurrency", "1")
    with waiting.many.running() as run:
        run.wait_for("migration.started")
        with waiting.queue.connect() as session:
            session.execute(_INTRUDE, [text, side])
        run.wait_for("worker.failed")
        (tmp_path / "go").touch()
        outcome = run.finish()

    # Another session of the same machine has begun anew what was at hand.
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert "database.begun_anew" in outcome.stderr
    assert waiting.many.new() == _COUNT
    assert machine.drain() == 0


@pytest.mark.parametrize("machines", [1, 2])
def test_a_session_that_the_queue_gives_twice_is_served_once(
    waiting: FleetOfMachines, tmp_path: Path, machines: int
) -> None:
    started = [waiting.start("--concurrency", "6") for _ in range(machines)]
    with waiting.queue.connect() as session:
        session.execute(_KEEP)
    with waiting.many.running() as run:
        run.wait_for("migration.started")
        with waiting.queue.connect() as session:
            session.execute(_GIVE_AGAIN)
        run.wait_for("worker.failed")
        (tmp_path / "go").touch()
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert waiting.many.new() == _COUNT
    # The run may end while one more begins, in place of the one that was lost.
    joined = waiting.rows('SELECT session FROM kept WHERE starts_with(body, \'{"kind":"joined"\')')
    assert len(set(joined)) == len(joined) >= len(outcome.named("worker.started")) >= 1
    assert [machine.drain() for machine in started] == [0] * machines


def test_a_machine_that_lives_lets_go_of_what_it_was_taken_for_lost_with(
    waiting: FleetOfMachines, tmp_path: Path
) -> None:
    machine = waiting.start("--concurrency", "6")
    with waiting.many.running() as run:
        for _ in range(_COUNT):
            run.wait_for("migration.started")
        with waiting.queue.connect() as session:
            session.execute("DELETE FROM procrastinate_jobs WHERE status = 'doing'")
        # Its worker waits in the migration, and has the lease, until somebody ends it.
        for _ in range(_COUNT):
            run.wait_for("lease.acquired", epoch=2)
        (tmp_path / "go").touch()
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert waiting.many.new() == _COUNT
    assert machine.drain() == 0


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_what_is_at_hand(waiting: FleetOfMachines, number: signal.Signals) -> None:
    machine = waiting.start("--concurrency", "1")
    before = waiting.many.dumps(sequences=False)
    with waiting.many.running() as run:
        run.wait_for("migration.started")
        machine.process.send_signal(number)
        until(lambda: "another signal ends that too" in machine.log)
        machine.process.send_signal(number)
        outcome = run.finish()

    assert machine.process.wait(timeout=60) == 0
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert "was ended by its machine" in outcome.report["error"]["message"]
    assert waiting.many.dumps(sequences=False) == before
    assert waiting.rows(_LEFT) == [(0, 0, 0, 0)]


@pytest.mark.long
def test_a_second_signal_ends_a_machine_whose_queue_is_away(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pg_programs: Path | None
) -> None:
    monkeypatch.setenv("SMALL_GO", str(tmp_path / "go"))
    with (
        PostgresServer(settings=THROW_AWAY, programs=pg_programs) as away,
        _fleet(server, tmp_path, _WAITING, _WAITS, away) as fleet,
    ):
        machine = fleet.start("--concurrency", "1")
        with fleet.many.running() as run:
            run.wait_for("migration.started")
            away.stop("immediate")
            try:
                machine.process.terminate()
                until(lambda: "another signal ends that too" in machine.log)
                machine.process.terminate()
                assert machine.process.wait(timeout=90) == 0
            finally:
                kill_family(run.process.pid)
                away.start()
        assert fleet.many.new() == 0


@pytest.mark.long
def test_a_session_ends_when_its_time_is_over(waiting: FleetOfMachines) -> None:
    waiting.plan(fleet='job_timeout = "1s"')
    machine = waiting.start("--concurrency", "1")
    before = waiting.many.dumps(sequences=False)

    outcome = waiting.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.report["error"]["message"] == (
        f"project one: the worker on {machine.name} was at one command for 1 s, the plan's `job_timeout`"
    )
    assert waiting.many.dumps(sequences=False) == before


@pytest.mark.long
def test_what_killed_ones_have_left_is_forgotten(waiting: FleetOfMachines) -> None:
    killed = waiting.start("--concurrency", "1")
    with waiting.many.running() as run:
        run.wait_for("migration.started")
        kill_family(run.process.pid)
        killed.lose()
    assert waiting.rows(_LEFT) != [(0, 0, 0, 1)]
    with waiting.queue.connect() as session:
        session.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 hour'")
        session.execute("UPDATE smooth_fleet_session SET renewed_at = now() - interval '1 hour'")

    machine = waiting.start()

    until(lambda: waiting.rows(_LEFT) == [(0, 0, 0, 1)])
    assert waiting.rows("SELECT name FROM smooth_fleet_machine") == [(machine.name,)]


@pytest.mark.long
def test_a_machine_whose_coordinator_was_killed_forgets_its_session(waiting: FleetOfMachines) -> None:
    machine = waiting.start("--concurrency", "1")
    with waiting.many.running() as run:
        run.wait_for("migration.started")
        kill_family(run.process.pid)

    until(lambda: waiting.rows(_LEFT) == [(0, 0, 0, 1)], patience_s=60)
    assert not machine.workers()


def test_a_machine_that_the_queue_has_forgotten_begins_anew(waiting: FleetOfMachines) -> None:
    machine = waiting.start()
    known = "SELECT worker_id FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id"
    (first,) = waiting.rows(known)
    with waiting.queue.connect() as session:
        session.execute("DELETE FROM procrastinate_workers")

    until(lambda: waiting.rows(known) not in ([], [first]))

    assert waiting.rows("SELECT name FROM smooth_fleet_machine") == [(machine.name,)]
    assert machine.drain() == 0


@pytest.mark.long
def test_a_machine_that_can_hear_nobody_any_more_ends_with_what_it_has_at_hand(waiting: FleetOfMachines) -> None:
    machine = waiting.start("--concurrency", "1")
    before = waiting.many.dumps(sequences=False)
    with waiting.many.running() as run:
        run.wait_for("migration.started")
        with waiting.queue.connect() as session:
            session.execute("DROP TABLE smooth_fleet_message, smooth_fleet_session")
        outcome = run.finish()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert machine.process.wait(timeout=60) == 3
    # Whichever it asks for first.
    assert re.search('relation "smooth_fleet_(message|session)" does not exist', machine.log)
    assert waiting.many.dumps(sequences=False) == before


def test_no_secret_of_a_plan_stands_in_the_queue(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_KEY", _WORD)
    with _fleet(server, tmp_path, "migrations.RunPython(tell, migrations.RunPython.noop)", _TELLS) as fleet:
        plan = fleet.many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace("env = { ", 'env = { SHOP_KEY = "${SHOP_KEY}", ', 1))
        fleet.start("--concurrency", "1")
        with fleet.queue.connect() as session:
            session.execute(_KEEP)

        outcome = fleet.many.run("deploy")

        assert outcome.exit_code == 1, outcome.stderr
        kept = [str(body) for (body,) in fleet.rows("SELECT body FROM kept")]
    assert [body for body in kept if _WORD in body] == []
    assert [body for body in kept if "the key is ***" in body]
    assert [body for body in kept if "no such key: ***" in body]


@pytest.mark.long
def test_what_a_machine_committed_without_being_heard_goes_back(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_GO", str(tmp_path / "go"))
    waits = migration(_WAITING, functions=_WAITS, after=[_NOTE])
    release = {"demo.0001_item": ITEM, "demo.0002_note": migration(_ADDS, after=[_ITEM]), "demo.0003_wait": waits}
    with fleet_of_machines(tmp_path, [server], 1, release) as fleet:
        fleet.plan(deploy='atomicity = "compensated"')
        plan = fleet.many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace('minimum_atomicity = "two_phase"\n', ""))
        before = fleet.many.dumps(sequences=False)
        deaf = fleet.start("--concurrency", "1")
        with fleet.queue.connect() as session:
            session.execute(_REFUSE)
        with fleet.many.running() as run:
            until(lambda: fleet.many.new() == 1)
            deaf.lose()
            with fleet.queue.connect() as session:
                session.execute("DROP TRIGGER refuse ON smooth_fleet_message")
            fleet.start("--concurrency", "1")
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert fleet.many.dumps(sequences=False) == before
