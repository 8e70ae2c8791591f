import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.deploys import LAST, Fleet, small_fleet
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Running, still_running
from tests.support.small_migrations import NOTE, failing

pytestmark = pytest.mark.timeout(60)

_WAITS = (
    "alias = editor.connection.alias\n"
    "    if alias != os.environ['WAIT_IN']: return\n"
    "    print('waiting', flush=True)\n"
    "    if alias == 'kiosk' and os.environ['WAIT_BY'] == 'python': threading.Event().wait()\n"
    "    if alias == 'kiosk': editor.connection.cursor().execute(os.environ['WAIT_BY'])\n"
    "    editor.connection.cursor().execute('SELECT pg_sleep(120)')"
)
_ENDLESS = "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number) SELECT max(n) FROM number"
_ALIASES = {"primary": "default", "kiosk": "kiosk", LAST: "shard_1"}


@pytest.fixture(autouse=True)
def heard_hang_up() -> Iterator[None]:
    """Let programs that are started here hear of a SIGHUP, whatever this one was started by."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.fixture
def fleet(
    tmp_path: Path, pg_server: PostgresServer, second_pg_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """Databases whose second pending migration waits, in the database that a test names."""
    monkeypatch.setenv("WAIT_IN", "nowhere")
    monkeypatch.setenv("WAIT_BY", "python")
    release = {"demo.0002_note": NOTE, "demo.0003_kind": failing(_WAITS)}
    with small_fleet(tmp_path, pg_server, second_pg_server, release) as fleet:
        yield fleet


def prepare(fleet: Fleet, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a deploy stop at a moment: a database's migration, or `gate`."""
    if moment == "gate":
        fleet.plan(shards='gate = ["sleep", "120"]')
    else:
        monkeypatch.setenv("WAIT_IN", _ALIASES[moment])


def reach(run: Running, moment: str) -> None:
    """Wait until a run is at a moment."""
    if moment == "gate":
        run.wait_for("gate.started")
    else:
        run.wait_for("output.captured", line="waiting", database=moment)


@pytest.mark.parametrize("moment", [pytest.param("kiosk", marks=pytest.mark.long), LAST])
def test_a_worker_killed_while_it_migrates_changes_no_database(
    moment: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(fleet, moment, monkeypatch)
    before = fleet.dumps()
    with fleet.running() as run:
        at_work = run.wait_for("output.captured", line="waiting", database=moment)["pid"]
        family = run.family()
        os.kill(at_work, signal.SIGKILL)
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.outcomes[moment] == "failed"
    assert outcome.report["error"]["database"] == moment
    assert not still_running(family)
    fleet.wait_until_alone()
    assert fleet.dumps() == before


@pytest.mark.long
def test_a_worker_killed_while_a_gate_looks_ends_the_gate_and_changes_no_database(fleet: Fleet) -> None:
    fleet.plan(shards='gate = ["sleep", "120"]')
    before = fleet.dumps()
    with fleet.running() as run:
        run.wait_for("gate.started")
        family = run.family()
        os.kill(run.worker_pid(), signal.SIGKILL)
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.report["error"]["type"] == "worker_lost"
    assert not still_running(family)
    [gate] = outcome.named("gate.failed")
    assert gate["error"]["message"] == "the gate of phase 'fleet', sleep, was ended because the run stops"
    fleet.wait_until_alone()
    assert fleet.dumps() == before


@pytest.mark.long
def test_locks_held_for_too_long_while_a_gate_looks_end_the_gate_and_change_no_database(fleet: Fleet) -> None:
    fleet.plan(deploy='expand_contract = false\nmax_lock_hold = "500ms"', shards='gate = ["sleep", "120"]')
    before = fleet.dumps()
    outcome = fleet.deploy()
    assert (outcome.exit_code, outcome.report["error"]["type"]) == (1, "max_lock_hold"), outcome.stderr
    assert [line["decision"] for line in outcome.named("deploy.decided")] == ["abort"]
    fleet.wait_until_alone()
    assert fleet.dumps() == before


@pytest.mark.long
def test_a_long_statement_in_sqlite_is_broken_off_by_a_signal(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAIT_BY", _ENDLESS)
    prepare(fleet, "kiosk", monkeypatch)
    before = fleet.dumps()
    with fleet.running() as run:
        reach(run, "kiosk")
        worker = psutil.Process(run.worker_pid())
        run.process.send_signal(signal.SIGTERM)
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.outcomes["kiosk"] == "rolled_back"
    assert outcome.named("migration.failed") == []
    assert not still_running([worker])
    assert fleet.dumps() == before


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, LAST),
        pytest.param(signal.SIGTERM, "kiosk", marks=pytest.mark.long),
        (signal.SIGTERM, "gate"),
        pytest.param(signal.SIGHUP, "gate", marks=pytest.mark.long),
    ],
)
def test_a_signal_before_the_decision_changes_no_database(
    number: signal.Signals, moment: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(fleet, moment, monkeypatch)
    before = fleet.dumps()
    with fleet.running() as run:
        reach(run, moment)
        family = run.family()
        run.process.send_signal(number)
        run.wait_for("run.interrupted", signal=number.name)
        run.process.send_signal(number)
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert number.name in outcome.report["error"]["message"]
    assert [line["decision"] for line in outcome.named("deploy.decided")] == ["abort"]
    assert not still_running(family)
    fleet.wait_until_alone()
    assert fleet.dumps() == before


_HANGS = "import time\nprint('hanging', flush=True)\ntime.sleep(300)\n"


@pytest.mark.parametrize(
    "file", ["demo/migrations/0004_hangs.py", pytest.param("small_settings.py", marks=pytest.mark.long)]
)
@pytest.mark.long
def test_a_second_signal_does_not_leave_behind_a_worker_that_hangs_when_it_imports(file: str, fleet: Fleet) -> None:
    with (fleet.directory / "project" / file).open("a") as module:
        module.write(_HANGS)
    with fleet.running() as run:
        run.wait_for("output.captured", line="hanging")
        family = run.family()
        run.process.send_signal(signal.SIGINT)
        run.wait_for("run.interrupted", signal="SIGINT")
        run.process.send_signal(signal.SIGINT)
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert outcome.report["error"]["message"] == "interrupted by SIGINT"
    assert not still_running(family)


@pytest.mark.long
@pytest.mark.parametrize(
    "file", ["demo/migrations/0004_hangs.py", pytest.param("small_settings.py", marks=pytest.mark.long)]
)
def test_a_worker_that_hangs_when_it_imports_ends_with_its_coordinator(file: str, fleet: Fleet) -> None:
    with (fleet.directory / "project" / file).open("a") as module:
        module.write(_HANGS)
    with fleet.running() as run:
        run.wait_for("output.captured", line="hanging")
        family = run.family()
        run.process.kill()
        assert not still_running(family)


@pytest.mark.long
def test_a_gate_and_what_it_has_started_end_with_a_coordinator_that_is_killed(fleet: Fleet) -> None:
    fleet.plan(shards='gate = ["sh", "-c", "sleep 300 & echo looking; wait"]')
    before = fleet.dumps()
    with fleet.running() as run:
        run.wait_for("output.captured", line="looking")
        at_work = fleet.processes()
        assert {"sh", "sleep"} <= {process.name() for process in at_work}
        run.process.kill()
        run.process.wait()
        assert not still_running(at_work)
    fleet.wait_until_alone()
    assert fleet.run("recover").exit_code == 0
    assert fleet.dumps() == before


@pytest.mark.long
def test_a_terminal_that_goes_away_ends_no_run_that_was_started_with_nohup(fleet: Fleet) -> None:
    fleet.plan(shards='gate = ["sh", "-c", "kill -HUP $(ps -o ppid= -p $$)"]')
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        outcome = fleet.deploy()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
    assert len(outcome.named("gate.passed")) == 1
    assert outcome.named("run.interrupted") == []


@pytest.mark.long
def test_a_long_statement_in_sqlite_ends_with_its_coordinator(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAIT_BY", _ENDLESS)
    prepare(fleet, "kiosk", monkeypatch)
    before = fleet.dumps()
    with fleet.running() as run:
        reach(run, "kiosk")
        workers = run.workers()
        run.process.kill()
        run.process.wait()
        assert workers
        assert not still_running(workers)
    assert fleet.dumps() == before


@pytest.mark.long
@pytest.mark.parametrize("moment", [LAST, pytest.param("gate", marks=pytest.mark.long)])
def test_workers_end_and_nothing_is_changed_when_their_coordinator_is_killed(
    moment: str, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(fleet, moment, monkeypatch)
    before = fleet.dumps()
    with fleet.running() as run:
        reach(run, moment)
        workers = run.workers()
        run.process.kill()
        run.process.wait()
        assert workers
        assert not still_running(workers)
    fleet.wait_until_alone()
    assert fleet.dumps() == before


@pytest.mark.long
@pytest.mark.parametrize("command", ["recover", pytest.param("deploy", marks=pytest.mark.long)])
def test_an_interrupted_settlement_says_that_it_is_not_settled_and_is_taken_up_again(
    command: str, fleet: Fleet
) -> None:
    fleet.plan(deploy='expand_contract = false\natomicity = "held_open"')
    assert fleet.run("deploy", failpoint="journal.decision.after").exit_code == -signal.SIGKILL
    with fleet.first.connect() as session:
        session.execute("BEGIN; LOCK TABLE demo_item")
        with fleet.running(command=command) as run:
            run.wait_for("lock.waiting", database="primary")
            run.process.send_signal(signal.SIGTERM)
            outcome = run.finish()
        assert (outcome.exit_code, outcome.report["outcome"]) == (4, "needs_operator"), outcome.stderr
        assert outcome.report["settle_with"] == ["smooth-orchestrate recover deploy.toml"]
        session.execute("ROLLBACK")

    assert fleet.run("recover").report["outcome"] == "committed"
    assert all("0003_kind" in text for text in fleet.dumps().values())


@pytest.mark.long
def test_a_recovery_that_is_interrupted_before_it_begins_has_not_succeeded(fleet: Fleet) -> None:
    with fleet.running(command="recover") as run:
        run.wait_for("worker.started")
        os.kill(run.process.pid, signal.SIGTERM)
        outcome = run.finish()
    assert (outcome.exit_code, outcome.report["outcome"]) in {(1, "rolled_back"), (0, "nothing_to_do")}
