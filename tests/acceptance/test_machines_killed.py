"""SIGKILL at random moments of a deploy over machines, each of which a seed names again; and many databases at once."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.support.leases import until
from tests.support.machines import FleetOfMachines, Machine, fleet_of_machines
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.runs import Running
from tests.support.small_migrations import ITEM, NOTE, run_python
from tests.support.small_project import migration

pytestmark = pytest.mark.timeout(240)

_COUNT: Final = 6
_SEEDS: Final = 50
_FILL: Final = migration(
    "migrations.RunPython(forwards, nothing)",
    after=[("demo", "0002_note")],
    functions=run_python("apps.get_model('demo', 'Item').objects.using(editor.connection.alias).update(note='filled')"),
)
_RELEASE: Final = {"demo.0001_item": ITEM, "demo.0002_note": NOTE, "demo.0003_fill": _FILL}
# What is said by nobody any more is forgotten after a while, which is over now.
_AGE: Final = """
    WITH sessions AS (UPDATE smooth_fleet_session SET renewed_at = renewed_at - interval '1 hour')
    UPDATE procrastinate_workers SET last_heartbeat = last_heartbeat - interval '1 hour'
    WHERE id NOT IN (SELECT worker_id FROM smooth_fleet_machine WHERE name = ANY(%s))
"""
_LEFT: Final = """
    SELECT (SELECT count(*) FROM smooth_fleet_session), (SELECT count(*) FROM smooth_fleet_message),
           (SELECT count(*) FROM procrastinate_jobs), (SELECT count(*) FROM smooth_fleet_machine)
    FROM pg_sleep(0.1)
"""
# What a dump would tell, but for numbers that were used up and for times; and it takes less of it.
_STATE: Final = """
    SELECT table_name, column_name, data_type, column_default, is_nullable FROM information_schema.columns
    WHERE table_schema = 'public' AND NOT starts_with(table_name, 'smooth_')
    UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND NOT starts_with(conrelid::regclass::text, 'smooth_')
    UNION ALL SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes
    WHERE schemaname = 'public' AND NOT starts_with(tablename, 'smooth_')
    UNION ALL SELECT app, name, '', '', '' FROM django_migrations
    UNION ALL SELECT id::text, name, '', '', '' FROM demo_item
    ORDER BY 1, 2, 3
"""
_LEASED: Final = "SELECT owner FROM smooth_migrations_lease WHERE owner <> ''"
_OWNED: Final = "SELECT owner FROM smooth_journal_lease WHERE owner <> ''"

_Content = list[list[tuple[object, ...]]]


@dataclass(frozen=True)
class _Scene:
    """Databases before a release, three machines, and what an undisturbed deploy makes of the databases and logs."""

    fleet: FleetOfMachines
    machines: list[Machine]
    old: _Content
    new: _Content
    lines: int

    def revive(self) -> None:
        """Start a machine for each that was killed."""
        for place, machine in enumerate(self.machines):
            if machine.process.poll() is not None:
                self.machines[place] = self.fleet.start("--concurrency", "4")

    def until_nothing_is_left(self) -> None:
        """Wait until the queue knows of nobody but the machines that live, once its time for all others is over."""
        names = [machine.name for machine in self.machines]
        with self.fleet.queue.connect() as session:
            session.execute(_AGE, [names])
        until(lambda: self.fleet.rows(_LEFT) == [(0, 0, 0, len(names))], patience_s=60)


@pytest.fixture(scope="module")
def scene(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Scene]:
    """Six databases on two servers, the queue and the journal on a third one."""
    with (
        PostgresServer(settings=THROW_AWAY) as queue,
        fleet_of_machines(
            tmp_path_factory.mktemp("fleet"), [pg_server, second_pg_server], _COUNT, _RELEASE, queue
        ) as fleet,
    ):
        machines = [fleet.start("--concurrency", "4") for _ in range(3)]
        old = fleet.many.rows(_STATE)
        with temporary_database(queue) as journal:
            fleet.plan(journal=journal)
            outcome = fleet.many.run("deploy")
        assert outcome.exit_code == 0, outcome.stderr
        yield _Scene(fleet, machines, old, fleet.many.rows(_STATE), len(outcome.log))


def _kill_process(scene: _Scene, _run: Running, chance: random.Random) -> None:
    if workers := [worker for machine in scene.machines for worker in machine.workers()]:
        with suppress(psutil.NoSuchProcess):
            chance.choice(workers).kill()


def _kill_machine(scene: _Scene, _run: Running, chance: random.Random) -> None:
    machine = chance.choice(scene.machines)
    if chance.random() < 0.5:
        machine.lose()
    else:
        # Its workers see that it is gone, and end by themselves.
        machine.process.kill()
        machine.process.wait()


def _kill_machines(scene: _Scene, _run: Running, _chance: random.Random) -> None:
    for machine in scene.machines:
        machine.lose()


def _kill_coordinator(_scene: _Scene, run: Running, _chance: random.Random) -> None:
    run.process.kill()


def _crash_queue(scene: _Scene, _run: Running, _chance: random.Random) -> None:
    scene.fleet.queue.server.restart("immediate")


_VICTIMS: Final[dict[str, Callable[[_Scene, Running, random.Random], None]]] = {
    "process": _kill_process,
    "coordinator": _kill_coordinator,
    "queue": _crash_queue,
    "machine": _kill_machine,
    "machines": _kill_machines,
}
_NAMES: Final = tuple(_VICTIMS)


@pytest.mark.parametrize(
    ("seed", "victim"),
    [
        pytest.param(seed, _NAMES[seed % len(_NAMES)], marks=[pytest.mark.long] if seed > 2 else [])
        for seed in range(_SEEDS)
    ],
)
def test_whoever_is_killed_all_databases_are_new_or_all_old(scene: _Scene, seed: int, victim: str) -> None:
    chance = random.Random(f"{victim} {seed}")
    many = scene.fleet.many
    many.reset()
    with temporary_database(scene.fleet.queue.server) as journal:
        scene.fleet.plan(journal=journal)
        with many.running() as run:
            run.wait_for_lines(chance.randint(1, scene.lines))
            if run.process.poll() is None:
                _VICTIMS[victim](scene, run, chance)
            if victim == "coordinator":
                run.process.wait()
                run.drain()
            else:
                ended = run.finish()
                assert ended.exit_code in {0, 1, 3, 4}, ended.stderr
        scene.revive()

        settled = many.run("recover")

        assert settled.exit_code == 0, settled.stderr
        with journal.connect() as session:
            assert session.execute(_OWNED).fetchall() == []
            decisions = session.execute("SELECT data->>'decision' FROM smooth_journal WHERE kind = 'decision'")
            is_new = ("commit",) in decisions.fetchall()
        assert many.prepared() == []
        assert many.rows(_STATE) == (scene.new if is_new else scene.old)

        deployed = many.run("deploy")

        assert deployed.exit_code == 0, deployed.stderr
        assert many.rows(_STATE) == scene.new
        assert many.prepared() == []
        assert many.rows(_LEASED) == [[]] * _COUNT
        with journal.connect() as session:
            assert session.execute(_OWNED).fetchall() == []
    scene.until_nothing_is_left()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.long)])
def test_of_many_databases_none_changes_where_the_last_fails_and_all_do_where_none_does(
    count: int, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(PostgresServer(max_prepared_transactions=count, settings=THROW_AWAY)) for _ in range(2)
        ]
        fleet = stack.enter_context(fleet_of_machines(tmp_path, servers, count, _RELEASE))
        for _ in range(3):
            fleet.start("--concurrency", "1")
        with fleet.many.databases[-1].connect() as session:
            session.execute("ALTER TABLE demo_item ADD COLUMN note text")
        before = fleet.many.rows(_STATE)

        # These take as long as they take.
        with fleet.many.running() as run:
            failed = run.finish()

        assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr[-3000:]
        assert failed.report["error"]["database"] == f"shards:shard_{count - 1}"
        assert fleet.many.prepared() == []
        assert fleet.many.rows(_STATE) == before

        with fleet.many.databases[-1].connect() as session:
            session.execute("ALTER TABLE demo_item DROP COLUMN note")
        with fleet.many.running() as run:
            outcome = run.finish()

        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert len({line["worker"] for line in outcome.named("worker.started")}) == 3
        assert fleet.many.prepared() == []
        assert fleet.many.new() == count
