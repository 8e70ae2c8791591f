"""SIGKILL at random moments, each of which a seed names again: six databases on two servers are all new or all old."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.many_databases import many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Running, still_running
from tests.support.small_migrations import ITEM, NOTE, run_python
from tests.support.small_project import migration

# The short run has those of test_random_moments.py.
pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

_FIRST_SEED = 0
_SEEDS = 75
_FILL = migration(
    "migrations.RunPython(forwards, nothing)",
    after=[("demo", "0002_note")],
    functions=run_python("apps.get_model('demo', 'Item').objects.using(editor.connection.alias).update(note='filled')"),
)
_RELEASE = {"demo.0001_item": ITEM, "demo.0002_note": NOTE, "demo.0003_fill": _FILL}


@dataclass(frozen=True)
class _Deploys:
    """How long an undisturbed deploy takes, and how many lines it logs."""

    servers: tuple[PostgresServer, PostgresServer]
    duration_s: float
    lines: int


@pytest.fixture(scope="module")
def deploys(
    pg_server: PostgresServer, second_pg_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[_Deploys]:
    servers = (pg_server, second_pg_server)
    with many_databases(tmp_path_factory.mktemp("clean"), servers, 6, _RELEASE) as many, many.running() as run:
        outcome = run.finish()
        assert outcome.exit_code == 0, outcome.stderr
        yield _Deploys(servers, time.monotonic() - run.started_s, len(outcome.log))


def _kill_coordinator(run: Running, _chance: random.Random) -> None:
    run.process.kill()


def _kill_worker(run: Running, chance: random.Random) -> None:
    for worker in chance.sample(workers := run.workers(), min(1, len(workers))):
        worker.kill()


def _kill_both(run: Running, chance: random.Random) -> None:
    workers = run.workers()
    run.process.kill()
    for worker in chance.sample(workers, min(1, len(workers))):
        _kill(worker)


def _kill_group(run: Running, _chance: random.Random) -> None:
    os.killpg(run.process.pid, signal.SIGKILL)


def _kill(process: psutil.Process) -> None:
    if process.is_running():
        process.kill()


_VICTIMS = {"coordinator": _kill_coordinator, "worker": _kill_worker, "both": _kill_both, "group": _kill_group}


@pytest.mark.parametrize(
    ("seed", "victim"),
    [(seed, victim) for seed in range(_FIRST_SEED, _FIRST_SEED + _SEEDS) for victim in _VICTIMS],
)
def test_six_databases_are_all_new_or_all_old(seed: int, victim: str, deploys: _Deploys, tmp_path: Path) -> None:
    chance = random.Random(f"{victim} {seed}")
    with many_databases(tmp_path, deploys.servers, 6, _RELEASE) as many:
        with many.running(own_group=True) as run:
            family = _strike(run, chance, deploys, _VICTIMS[victim])
            run.process.wait()
        assert not still_running(family)

        recovered = many.run("recover")

        assert recovered.exit_code == 0, recovered.stderr
        assert many.prepared() == []
        assert many.new() == (6 if many.decisions()[-1:] == ["commit"] else 0)
        assert many.run("deploy").exit_code == 0
        assert many.new() == 6


def _strike(
    run: Running, chance: random.Random, deploys: _Deploys, kill: Callable[[Running, random.Random], None]
) -> list[psutil.Process]:
    """Kill at a random moment of the deploy, by its log or by the clock, and return the processes there were."""
    if chance.random() < 0.5:
        run.wait_for_lines(chance.randint(1, deploys.lines))
    else:
        run.wait_until(chance.random() * deploys.duration_s)
    family = run.workers()
    if run.process.poll() is None:
        kill(run, chance)
    run.drain()
    return family
