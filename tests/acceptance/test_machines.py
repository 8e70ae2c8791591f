"""A deploy over worker machines: the same all-or-nothing, whoever of them is lost."""

import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from smooth_orchestrator import __version__
from tests.support.leases import until
from tests.support.machines import FleetOfMachines, fleet_of_machines
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.processes import kill_family
from tests.support.runs import SCRIPT, Running
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration
from tests.support.terminals import terminal, why_no_terminal

pytestmark = pytest.mark.timeout(180)

_COUNT: Final = 6
_NOTE: Final = migration(
    "migrations.AddField('item', 'note', models.CharField(max_length=9, default=''))", after=[("demo", "0001_item")]
)
_RELEASE: Final = {"demo.0001_item": ITEM, "demo.0002_note": _NOTE}
# It ends when the test lets it.
_WAITING: Final = {
    "demo.0001_item": ITEM,
    "demo.0002_note": migration(
        "migrations.AddField('item', 'note', models.CharField(max_length=9, default=''))",
        "migrations.RunPython(wait, migrations.RunPython.noop)",
        functions="""
import os
import time


def wait(apps, editor):
    while not os.path.exists(os.environ["SMALL_GO"]):
        time.sleep(0.02)
""",
        after=[("demo", "0001_item")],
    ),
}
_LEFT: Final = "SELECT (SELECT count(*) FROM smooth_fleet_session), (SELECT count(*) FROM procrastinate_jobs)"


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server for the databases and the queue."""
    with PostgresServer(settings=THROW_AWAY, programs=pg_programs) as server:
        yield server


@pytest.fixture
def fleet(server: PostgresServer, tmp_path: Path) -> Iterator[FleetOfMachines]:
    """Databases with a migration pending, and no machine yet."""
    with fleet_of_machines(tmp_path, [server], _COUNT, _RELEASE) as fleet:
        yield fleet


def test_a_deploy_is_shared_by_three_machines(fleet: FleetOfMachines) -> None:
    machines = [fleet.start("--concurrency", "1") for _ in range(3)]

    outcome = fleet.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert fleet.many.new() == _COUNT
    assert not fleet.many.prepared()
    parents = {machine.process.pid for machine in machines}
    at_work = {line["worker"] for line in outcome.named("migration.applied")}
    assert at_work
    assert {int(name.rpartition(":")[2]) for name in at_work} <= parents
    assert {line["worker"] for line in outcome.named("worker.started")} >= at_work
    # No message, job or session is left behind; the machines are there for the next one.
    assert fleet.rows(_LEFT) == [(0, 0)]
    assert {
        int(str(name).partition(":")[2]) for (name,) in fleet.rows("SELECT name FROM smooth_fleet_machine")
    } == parents
    assert [machine.drain() for machine in machines] == [0, 0, 0]
    assert fleet.rows("SELECT name FROM smooth_fleet_machine") == []


def test_status_tells_which_machines_there_are(fleet: FleetOfMachines) -> None:
    machine = fleet.start("--concurrency", "3")
    before = datetime.now(UTC) - timedelta(seconds=30)

    outcome = fleet.many.run("status")

    (worker,) = outcome.report["workers"]
    assert datetime.fromisoformat(worker.pop("heard_at")) > before
    # Those that look are at work themselves.
    assert {job["project"] for job in worker.pop("jobs")} == {"one"}
    name = worker.pop("worker")
    assert name.endswith(f":{machine.process.pid}")
    assert worker == {"version": __version__, "projects": ["one"], "concurrency": 3}


def test_a_failure_in_the_last_leaves_all_as_they_were(fleet: FleetOfMachines) -> None:
    fleet.start()
    fleet.start()
    last = fleet.many.databases[-1]
    with last.connect() as session:
        session.execute("ALTER TABLE demo_item ADD COLUMN note text")
    before = fleet.many.dumps(sequences=False)

    outcome = fleet.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.report["error"]["sqlstate"] == "42701"
    assert fleet.many.dumps(sequences=False) == before
    assert not fleet.many.prepared()


def test_what_is_committed_goes_back_over_the_fleet(fleet: FleetOfMachines) -> None:
    fleet.start()
    before = fleet.many.dumps(sequences=False)
    assert fleet.many.run("deploy").exit_code == 0

    outcome = fleet.many.run("rollback")

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert fleet.many.dumps(sequences=False) == before


def test_a_machine_with_another_release_is_refused_by_name(fleet: FleetOfMachines) -> None:
    machine = fleet.start(release={"demo/migrations/0002_note.py": f"{_NOTE}\n# changed\n"})
    before = fleet.many.dumps(sequences=False)

    outcome = fleet.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    error = outcome.report["error"]
    assert f":{machine.process.pid} has other migrations" in error["message"]
    assert fleet.many.dumps(sequences=False) == before


def test_without_a_machine_it_is_refused(fleet: FleetOfMachines) -> None:
    outcome = fleet.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    assert outcome.report["error"]["message"] == (
        "project one: no machine of the fleet serves it (queue many-migrations:one)"
    )
    assert fleet.many.new() == 0


def test_what_would_be_held_open_is_refused_by_name(fleet: FleetOfMachines) -> None:
    fleet.plan(deploy='atomicity = "held_open"')
    plan = fleet.many.directory / "deploy.toml"
    plan.write_text(plan.read_text().replace('minimum_atomicity = "two_phase"\n', ""))
    fleet.start()

    outcome = fleet.many.run("deploy")

    assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
    messages = {error["place"]: error["message"] for error in outcome.report["errors"]}
    assert len(messages) == _COUNT
    assert all("a transaction held open cannot change machines" in each for each in messages.values())
    assert fleet.many.new() == 0


def test_what_cannot_be_prepared_is_not_held_open_instead(server: PostgresServer, tmp_path: Path) -> None:
    keeps = migration('migrations.RunSQL("DECLARE kept CURSOR WITH HOLD FOR SELECT 1")', after=[("demo", "0002_note")])
    with fleet_of_machines(tmp_path, [server], 2, {**_RELEASE, "demo.0003_keeps": keeps}) as fleet:
        plan = fleet.many.directory / "deploy.toml"
        plan.write_text(plan.read_text().replace('minimum_atomicity = "two_phase"\n', ""))
        fleet.start()
        before = fleet.many.dumps(sequences=False)

        outcome = fleet.many.run("deploy")

        assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
        assert outcome.report["error"]["sqlstate"] == "0A000"
        assert outcome.named("tier.changed") == []
        assert fleet.many.dumps(sequences=False) == before


def test_what_the_coordinator_does_not_reach_the_machines_do(fleet: FleetOfMachines) -> None:
    before = fleet.many.dumps(sequences=False)
    for _ in range(2):
        fleet.start()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        fleet.many.reach_through(nobody.getsockname()[1])

        outcome = fleet.many.run("deploy")

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert {entry["tier"] for entry in outcome.report["databases"]} == {"two_phase"}
        assert fleet.many.new() == _COUNT
        assert not fleet.many.prepared()

        assert fleet.many.run("rollback").exit_code == 0
        assert fleet.many.dumps(sequences=False) == before


@contextmanager
def _waiting(
    server: PostgresServer, directory: Path, monkeypatch: pytest.MonkeyPatch, queue_on: PostgresServer | None = None
) -> Iterator[FleetOfMachines]:
    """Yield a fleet whose migrations end once there is a file `go`."""
    monkeypatch.setenv("SMALL_GO", str(directory / "go"))
    with fleet_of_machines(directory, [server], _COUNT, _WAITING, queue_on) as fleet:
        yield fleet


def _all_begin(run: Running) -> None:
    for _ in range(4):
        run.wait_for("migration.started")


@pytest.mark.long
def test_what_a_lost_machine_had_begun_another_one_begins_anew(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _waiting(server, tmp_path, monkeypatch) as fleet:
        lost, _other = (fleet.start("--concurrency", "2") for _ in range(2))
        with fleet.many.running() as run:
            _all_begin(run)
            lost.lose()
            run.wait_for("worker.failed")
            (tmp_path / "go").touch()
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert fleet.many.new() == _COUNT
        assert not fleet.many.prepared()
        assert fleet.rows(_LEFT) == [(0, 0)]


@pytest.mark.long
def test_a_machine_that_comes_later_takes_the_place_of_a_lost_one(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _waiting(server, tmp_path, monkeypatch) as fleet:
        lost, _other = (fleet.start("--concurrency", "2") for _ in range(2))
        with fleet.many.running() as run:
            _all_begin(run)
            lost.lose()
            run.wait_for("worker.failed")
            later = fleet.start("--concurrency", "2")
            # What the lost one had begun, while all others are at work.
            run.wait_for("migration.started", worker=later.name)
            (tmp_path / "go").touch()
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert fleet.many.new() == _COUNT
        assert not fleet.many.prepared()


@pytest.mark.long
@pytest.mark.parametrize("whole", ["with its workers", "without them"])
def test_a_machine_that_was_frozen_changes_nothing_when_it_wakes_up(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: str
) -> None:
    with _waiting(server, tmp_path, monkeypatch) as fleet:
        frozen, _other = (fleet.start("--concurrency", "2") for _ in range(2))
        with fleet.many.running() as run:
            _all_begin(run)
            family = frozen.freeze(alone=whole == "without them")
            run.wait_for("worker.failed")
            later = fleet.start("--concurrency", "2")
            # A worker that was not frozen is at work all the while, and has a lease to keep alive.
            run.wait_for("migration.started", worker=later.name)
            (tmp_path / "go").touch()
            outcome = run.finish()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        after = fleet.many.dumps()

        for process in family:
            process.resume()
        until(lambda: not frozen.workers())

        assert fleet.many.dumps() == after
        assert not fleet.many.prepared()


@pytest.mark.long
@pytest.mark.parametrize("whose", ["machines", "coordinator"])
def test_where_all_machines_or_the_coordinator_are_lost_all_is_as_it_was(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    with _waiting(server, tmp_path, monkeypatch) as fleet:
        machines = [fleet.start("--concurrency", "2") for _ in range(2)]
        before = fleet.many.dumps(sequences=False)
        with fleet.many.running() as run:
            _all_begin(run)
            if whose == "coordinator":
                kill_family(run.process.pid)
            else:
                for machine in machines:
                    machine.lose()
                outcome = run.finish()
                assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
                fleet.start()

        settled = fleet.many.run("recover")

        assert settled.exit_code == 0, settled.stderr
        assert fleet.many.dumps(sequences=False) == before
        assert not fleet.many.prepared()


@pytest.mark.long
def test_a_machine_that_drains_finishes_what_is_at_hand(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _waiting(server, tmp_path, monkeypatch) as fleet:
        draining, _other = (fleet.start("--concurrency", "2") for _ in range(2))
        with fleet.many.running() as run:
            _all_begin(run)
            draining.process.terminate()
            until(lambda: "ends when what is at hand has ended" in draining.log)
            (tmp_path / "go").touch()
            outcome = run.finish()
        assert draining.process.wait(timeout=60) == 0
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert fleet.many.new() == _COUNT


@pytest.mark.long
def test_a_queue_whose_server_crashes_is_waited_for(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PostgresServer(settings=THROW_AWAY) as queue, _waiting(server, tmp_path, monkeypatch, queue) as fleet:
        for _ in range(2):
            fleet.start("--concurrency", "2")
        before = fleet.many.dumps(sequences=False)
        with fleet.many.running() as run:
            _all_begin(run)
            queue.restart("immediate")
            (tmp_path / "go").touch()
            outcome = run.finish()

        # Whether the machines have heard of it in time or not: all of them, or none.
        assert outcome.exit_code in {0, 1}, outcome.stderr
        assert fleet.many.new() == (0 if outcome.exit_code else _COUNT)
        assert not fleet.many.prepared()
        assert outcome.exit_code == 0 or fleet.many.dumps(sequences=False) == before
        assert fleet.many.run("deploy").exit_code == 0
        assert fleet.many.new() == _COUNT


@pytest.mark.skipif(why_no_terminal() is not None, reason=str(why_no_terminal()))
def test_a_machine_at_a_terminal_says_what_it_serves_and_what_a_signal_does(fleet: FleetOfMachines) -> None:
    with terminal(fleet.many.directory, fleet.many.environment, columns=200) as screen:
        screen.type(f"{shlex.quote(SCRIPT)} worker deploy.toml --concurrency 1")
        screen.wait_for("serves", "1 at a time")
        screen.press("C-c")
        screen.wait_for("another signal ends that too", "has ended")
        assert "starting" not in screen.everything()
        assert screen.is_sane()
