"""Deploys that are killed or interrupted at random moments, each of which a seed names again."""

import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.deploys import Fleet, copy_of, small_fleet
from tests.support.dump import diff
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome, Running, still_running
from tests.support.small_migrations import NOTE, run_python
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(120)

_FIRST_SEED = 0
_SHORT = 1
_SEEDS = [
    pytest.param(seed, id=str(seed), marks=() if number < _SHORT else pytest.mark.long)
    for number, seed in enumerate(range(_FIRST_SEED, _FIRST_SEED + 10))
]
_MORE_ROWS = """\
INSERT INTO demo_item (name)
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 30)
SELECT 'kite ' || n FROM numbers
"""
_FILL = """\
for item in apps.get_model('demo', 'Item').objects.using(editor.connection.alias).order_by('id'):
        item.note = item.name.upper()
        item.save(update_fields=['note'])
"""
_TAG = migration(
    "migrations.AlterField('item', 'note', models.CharField(max_length=80, default='none'))",
    "migrations.AddIndex('item', models.Index(fields=['note'], name='demo_item_note'))",
    "migrations.CreateModel('Tag', [('id', models.BigAutoField(primary_key=True)), "
    "('item', models.ForeignKey('demo.item', models.CASCADE))])",
    after=[("demo", "0003_fill")],
)


@dataclass(frozen=True, slots=True)
class Release:
    """A fleet before a release, and what a deploy of it is when nothing interrupts it.

    Args:
        fleet: to be copied, never deployed to.
        sequences: whether the positions of SQLite's sequences come back with the rest.
        before: dumps as they are.
        after: dumps as a deploy leaves them, without when it was.
        first_worker_s: when its first worker process begins, from its own start.
        duration_s: how long it takes.
        lines: how many lines it logs.
    """

    fleet: Fleet
    sequences: bool
    before: dict[str, str]
    after: dict[str, str]
    first_worker_s: float
    duration_s: float
    lines: int


@dataclass(frozen=True, slots=True)
class Moment:
    """When a deploy is struck: after so many lines of its log, or so long after its start."""

    lines: int | None
    after_s: float

    @classmethod
    def of(cls, seed: int, release: Release, *, from_s: float = 0.0) -> "Moment":
        """Choose one: every second seed a line, the others a time between `from_s` and the end."""
        chance = random.Random(seed)
        lines = chance.randint(1, release.lines) if seed % 2 else None
        return cls(lines, from_s + chance.random() * (release.duration_s - from_s))

    def wait(self, run: Running) -> None:
        """Wait until a run is there, or has ended."""
        if self.lines is None:
            run.wait_until(self.after_s)
        else:
            run.wait_for_lines(self.lines)


@pytest.fixture(scope="module")
def release(
    tmp_path_factory: pytest.TempPathFactory, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> Iterator[Release]:
    """A release of which each database takes all or nothing."""
    directory = tmp_path_factory.mktemp("held")
    with small_fleet(directory, pg_server, second_pg_server, next_release(atomic=True)) as fleet:
        yield measured(fleet, tmp_path_factory.mktemp("clean"), sequences=True)


@pytest.fixture(scope="module")
def release_outside_transactions(
    tmp_path_factory: pytest.TempPathFactory, pg_server: PostgresServer, second_pg_server: PostgresServer
) -> Iterator[Release]:
    """The same with a migration in its middle that is in no transaction, so that each is committed by itself."""
    directory = tmp_path_factory.mktemp("compensated")
    with small_fleet(directory, pg_server, second_pg_server, next_release(atomic=False)) as fleet:
        yield measured(fleet, tmp_path_factory.mktemp("clean"), sequences=False)


def next_release(*, atomic: bool) -> dict[str, str]:
    """Return a change of the schema, a change of the data, and a larger change of the schema."""
    fill = migration(
        "migrations.RunPython(forwards, nothing)",
        after=[("demo", "0002_note")],
        atomic=atomic,
        functions=run_python(_FILL),
    )
    return {"demo.0002_note": NOTE, "demo.0003_fill": fill, "demo.0004_tag": _TAG}


def measured(fleet: Fleet, directory: Path, *, sequences: bool) -> Release:
    """Deploy to a copy of a fleet, undisturbed."""
    fleet.execute(_MORE_ROWS)
    fleet.plan(canary="parallel = 2")
    fleet.wait_until_alone()
    with copy_of(fleet, directory) as copied:
        before = copied.dumps(sequences=sequences)
        with copied.running() as run:
            run.wait_for("worker.started")
            born_s = psutil.Process(run.worker_pid()).create_time() - psutil.Process(run.process.pid).create_time()
            outcome = run.finish()
            duration_s = time.monotonic() - run.started_s
        assert (outcome.exit_code, set(outcome.outcomes.values())) == (0, {"committed"}), outcome.stderr
        after = copied.dumps(sequences=sequences, applied=False)
        assert all("KITE 30" in text and "demo_tag" in text for text in after.values())
        assert all("KITE" not in text and "demo_tag" not in text for text in before.values())
    return Release(fleet, sequences, before, after, born_s, duration_s, len(outcome.log))


def assert_all_or_nothing(release: Release, fleet: Fleet, outcome: Outcome) -> None:
    """Assert that the databases are as the exit code says, and that nobody is left at work on them."""
    assert not still_running(fleet.processes())
    fleet.wait_until_alone()
    committed = outcome.exit_code == 0
    expected = release.after if committed else release.before
    found = fleet.dumps(sequences=release.sequences, applied=not committed)
    differences = "".join(diff(expected[name], text) for name, text in found.items())
    assert not differences, f"exit code {outcome.exit_code}\n{differences}\n{outcome.stderr}"
    assert fleet.decisions() in ([["commit"]] if committed else [[], ["abort"]]), outcome.stderr
    assert all("event" in line for line in outcome.log)
    assert outcome.report["exit_code"] == outcome.exit_code


def strike_worker(seed: int, release: Release, directory: Path) -> None:
    """Kill a worker of a deploy at the seed's moment, and assert what must be so afterwards."""
    moment = Moment.of(seed, release, from_s=release.first_worker_s)
    with copy_of(release.fleet, directory) as fleet:
        with fleet.running() as run:
            moment.wait(run)
            if not (workers := run.workers()) and run.process.poll() is None and moment.lines is None:
                # A machine that is busier than it was: the first worker is still to come.
                run.wait_for_lines(1)
                workers = run.workers()
            for worker in random.Random(seed).sample(workers, min(1, len(workers))):
                worker.kill()
            outcome = run.finish()
        began = "phase.started" in outcome.stderr
        assert outcome.exit_code in ({0, 1} if began else {1, 3}), f"{moment}\n{outcome.stderr}"
        assert_all_or_nothing(release, fleet, outcome)


@pytest.mark.parametrize("seed", _SEEDS)
def test_a_worker_killed_at_any_moment_leaves_all_databases_old_or_all_new(
    seed: int, release: Release, tmp_path: Path
) -> None:
    strike_worker(seed, release, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("seed", _SEEDS)
def test_a_worker_killed_between_committed_steps_leaves_all_databases_old_or_all_new(
    seed: int, release_outside_transactions: Release, tmp_path: Path
) -> None:
    strike_worker(seed, release_outside_transactions, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("seed", _SEEDS)
def test_a_signal_at_any_moment_leaves_all_databases_old_or_all_new(
    seed: int, number: signal.Signals, release: Release, tmp_path: Path
) -> None:
    moment = Moment.of(seed, release)
    with copy_of(release.fleet, tmp_path) as fleet:
        with fleet.running() as run:
            moment.wait(run)
            run.process.send_signal(number)
            outcome = run.finish()
        if not outcome.stdout:
            # While the interpreter or the command line is being loaded nobody can write a report.
            assert outcome.exit_code in {1, -number}
            assert fleet.dumps() == release.before
            return
        assert outcome.exit_code in {0, 1}, f"{moment}\n{outcome.exit_code}\n{outcome.stderr}"
        assert_all_or_nothing(release, fleet, outcome)


@pytest.mark.long
@pytest.mark.parametrize("seed", _SEEDS)
def test_a_coordinator_killed_at_any_moment_is_settled_by_the_journal_s_decision(
    seed: int, release: Release, tmp_path: Path
) -> None:
    moment = Moment.of(seed, release)
    with copy_of(release.fleet, tmp_path) as fleet:
        with fleet.running() as run:
            moment.wait(run)
            run.process.kill()
            run.process.wait()
        assert not still_running(fleet.processes())
        fleet.wait_until_alone()
        # Locked, and so not to be looked at before it is settled.
        if not fleet.prepared():
            old, new = fleet.dumps(), fleet.dumps(applied=False)
            if fleet.decisions() != ["commit"]:
                assert fleet.decisions() == []
                assert old == release.before
            for name, text in old.items():
                assert release.before[name] == text or release.after[name] == new[name]

        recovered = fleet.run("recover")

        assert recovered.exit_code == 0, f"{moment}\n{recovered.stderr}"
        assert not fleet.prepared()
        is_decided = fleet.decisions()[-1:] == ["commit"]
        assert fleet.dumps(applied=not is_decided) == (release.after if is_decided else release.before)
