"""A deploy of migrations that wait, over a fleet's queue: `python -m benchmarks.scaling` tells what each part spends.

The migration is `RunSQL("SELECT pg_sleep(0.2)")`, so a worker waits for most of its time, and what is left is the work
of handing targets out. It runs for real on each database: with `--no-replay`, and each database is asked afterwards
whether its own server has seen the time pass.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.many_databases import PROGRAM
from benchmarks.measuring import Run
from benchmarks.processor_time import machine_s, run, spent_s
from tests.support.leases import until
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family
from tests.support.small_project import SmallProject, migration

__all__ = ["OverQueue", "Scaling", "Spent", "WaitingFleet"]

_WAIT_S: Final = 0.2
_SLEPT: Final = """
    CREATE TABLE demo_slept (migration text PRIMARY KEY, began_at timestamptz NOT NULL, ended_at timestamptz)
"""
_HAS_SLEPT: Final = """
    SELECT count(*) FROM demo_slept WHERE migration = %s AND ended_at - began_at >= make_interval(secs => %s)
"""
_COUNTS: Final = """
    SELECT (SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'smooth_fleet_message') AS messages,
           (SELECT count(*) FROM smooth_journal) AS rows,
           pg_total_relation_size('smooth_fleet_message') AS queue_bytes,
           pg_total_relation_size('smooth_journal') AS journal_bytes
"""
_ENROLLED: Final = """
    SELECT count(*) = 1 FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id
    WHERE split_part(m.name, ':', 2) = %s
"""
_PLAN: Final = """\
version = 1

[deploy]
name = "scaling"
journal = "{queue}"
expand_contract = false
minimum_atomicity = "two_phase"
max_lock_hold = "15min"

[projects.one]
path = "project"
settings = "small_settings"
env = {{ SMALL_DATABASES = "${{SMALL_DATABASES}}" }}

[databases.shards]
project = "one"
aliases = "shard_*"

[[phases]]
name = "all"
databases = ["shards:*"]
parallel = {parallel}
"""
_FLEET: Final = """
[fleet]
transport = "procrastinate"
queue_url = "{queue}"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What one deploy took, in seconds; of the processor by who has spent it.

    Args:
        duration_s: wall clock of the whole program.
        phase_s: wall clock from the beginning of its phase to the end of that.
        coordinator_s: the program itself.
        workers_s: machines, workers, and the process that reads the settings.
        servers_s: the databases' server.
        queue_s: the server of queue and journal.
        messages: how many went through the queue.
        rows: how many the journal got.
        queue_bytes: what the messages took there, with their indexes.
        journal_bytes: likewise.
        others: how many of the machine's cores others had meanwhile.
    """

    duration_s: float
    phase_s: float
    coordinator_s: float
    workers_s: float
    servers_s: float
    queue_s: float
    messages: int
    rows: int
    queue_bytes: int
    journal_bytes: int
    others: float

    @property
    def processor_s(self) -> float:
        """All of it."""
        return self.coordinator_s + self.workers_s + self.servers_s + self.queue_s


class WaitingFleet:
    """Databases of a small project, each deploy of which has one more migration that waits.

    Args:
        server: of the databases.
        other: of the queue and the journal.
        directory: for the plan and the project.
        count: how many databases.
        wait_s: how long each migration waits.
    """

    def __init__(
        self, server: PostgresServer, other: PostgresServer, directory: Path, count: int, wait_s: float = _WAIT_S
    ) -> None:
        self.count = count
        self._wait_s = wait_s
        self._databases = [PostgresDatabase(server, f"waiting_{count}_{number}") for number in range(count)]
        self._queue = PostgresDatabase(other, f"waiting_{count}_queue")
        self._directory = directory / f"waiting_{count}"
        self._project: SmallProject | None = None
        self._release = 1

    def prepare(self) -> None:
        """Make the databases, once; then a release with one more migration, and an empty queue and journal."""
        project = self._project = self._project or self._make()
        before, self._release = f"{self._release:04}", self._release + 1
        name = f"{self._release:04}"
        began = f"INSERT INTO demo_slept VALUES ('{name}', clock_timestamp())"  # noqa: S608 - our own name
        ended = f"UPDATE demo_slept SET ended_at = clock_timestamp() WHERE migration = '{name}'"  # noqa: S608 - likewise
        waits = f"migrations.RunSQL([{began!r}, 'SELECT pg_sleep({self._wait_s})', {ended!r}], migrations.RunSQL.noop)"
        project.write_migration(f"demo.{name}", migration(waits, after=[("demo", before)]))
        self._queue.server.drop_database(self._queue.name)
        self._queue.server.create_database(self._queue.name)

    def deploy(self, workers: int | None) -> Spent:
        """Deploy the release over the queue, with so many workers; with one, and without a queue, for None.

        Raises:
            RuntimeError: it failed, or a database has not waited.
        """
        with self._serving(workers) as machine:
            pids = {"workers": machine, "servers": self._databases[0].server.pid, "queue": self._queue.server.pid}
            before, busy_s = {name: spent_s(pid) if pid else 0.0 for name, pid in pids.items()}, machine_s()
            argv = [str(PROGRAM), "deploy", "deploy.toml", "--log-format", "json", "--no-replay"]
            ended = run(argv, cwd=self._directory, env=self._environment)
            spent = {name: (spent_s(pid) if pid else 0.0) - before[name] for name, pid in pids.items()}
            others_s = machine_s() - busy_s - sum(spent.values()) - ended.own_s - ended.others_s
        self._check()
        counts = self._counts(is_queued=workers is not None)
        return Spent(
            duration_s=ended.duration_s,
            phase_s=_phase_s(ended.stderr),
            coordinator_s=ended.own_s,
            workers_s=spent["workers"] + ended.others_s,
            servers_s=spent["servers"],
            queue_s=spent["queue"],
            others=others_s / ended.duration_s,
            **counts,
        )

    @property
    def _environment(self) -> dict[str, str]:
        aliases = {f"shard_{number}": each.django for number, each in enumerate(self._databases)}
        return {"SMALL_DATABASES": json.dumps({"default": self._databases[0].django, **aliases})}

    def _make(self) -> SmallProject:
        template = PostgresDatabase(self._databases[0].server, f"waiting_{self.count}_template")
        template.server.create_database(template.name)
        first = {"demo.0001": migration(f"migrations.RunSQL({_SLEPT!r}, migrations.RunSQL.noop)")}
        SmallProject(self._directory / "before", {"default": template.django}, first).succeed("migrate")
        for database in self._databases:
            database.server.create_database(database.name, template.name)
        return SmallProject(self._directory / "project", {"default": template.django}, first)

    @contextmanager
    def _serving(self, workers: int | None) -> Iterator[int | None]:
        """Write the plan, and have a machine serve it that takes so many sessions; its process id, if there is one."""
        fleet = "" if workers is None else _FLEET
        plan = f"{_PLAN}{fleet}".format(queue=self._queue.dsn, parallel=workers or 1)
        (self._directory / "deploy.toml").write_text(plan)
        if workers is None:
            yield None
            return
        argv = [str(PROGRAM), "worker", "deploy.toml", "--concurrency", str(workers), "--log-format", "json"]
        with ExitStack() as stack:
            log = stack.enter_context((self._directory / "machine.log").open("wb"))
            machine = subprocess.Popen(
                argv, cwd=self._directory, env={**os.environ, **self._environment}, stdout=log, stderr=log
            )
            stack.callback(_end, machine)
            until(lambda: self._is_enrolled(machine.pid))
            yield machine.pid
            machine.send_signal(signal.SIGTERM)
            machine.wait()

    def _is_enrolled(self, pid: int) -> bool:
        with self._queue.connect() as session:
            found = session.execute("SELECT to_regclass('procrastinate_workers')").fetchone()
            return found != (None,) and session.execute(_ENROLLED, [str(pid)]).fetchone() == (True,)

    def _check(self) -> None:
        for database in self._databases:
            with database.connect() as session:
                if session.execute(_HAS_SLEPT, [f"{self._release:04}", self._wait_s]).fetchone() != (1,):
                    raise RuntimeError(f"{database.name} has not waited")

    def _counts(self, *, is_queued: bool) -> dict[str, int]:
        with self._queue.connect() as session:
            if not is_queued:
                size = "SELECT count(*), pg_total_relation_size('smooth_journal') FROM smooth_journal"
                rows, journal_bytes = session.execute(size).fetchone() or (0, 0)
                return {"messages": 0, "rows": rows, "queue_bytes": 0, "journal_bytes": journal_bytes}
            names = ("messages", "rows", "queue_bytes", "journal_bytes")
            return dict(zip(names, session.execute(_COUNTS).fetchone() or (0, 0, 0, 0), strict=True))


class Scaling:
    """Ours is the time that all workers together have, the peer's that of one alone: 1 is twice as fast with two.

    Args:
        fleet: the databases.
        workers: how many.
    """

    def __init__(self, fleet: WaitingFleet, workers: int) -> None:
        self._fleet = fleet
        self._workers = workers
        self.name = f"scaling/{fleet.count}-databases/{workers}-workers"

    def prepare(self) -> None:
        """Make the next release."""
        self._fleet.prepare()

    def run_ours(self) -> Run:
        """Deploy with all of them."""
        return _run(self._fleet.deploy(self._workers), self._workers)

    def run_peer(self) -> Run:
        """Deploy with one."""
        return _run(self._fleet.deploy(1), 1)


class OverQueue:
    """One worker over the queue; the peer is one of the same machine, without a queue.

    Args:
        fleet: the databases.
    """

    def __init__(self, fleet: WaitingFleet) -> None:
        self._fleet = fleet
        self.name = f"scaling/{fleet.count}-databases/over-the-queue"

    def prepare(self) -> None:
        """Make the next release."""
        self._fleet.prepare()

    def run_ours(self) -> Run:
        """Deploy over the queue."""
        return _run(self._fleet.deploy(1), 1)

    def run_peer(self) -> Run:
        """Deploy without it."""
        return _run(self._fleet.deploy(None), 1)


def _end(machine: "subprocess.Popen[bytes]") -> None:
    # The number of one that has ended may be another's by now.
    if machine.poll() is None:
        kill_family(machine.pid)
    machine.wait()


def _run(spent: Spent, workers: int) -> Run:
    beside = {"phase": spent.phase_s * workers, "coordinator": spent.coordinator_s, "processor": spent.processor_s}
    return Run(spent.duration_s * workers, {}, beside)


def _phase_s(log: str) -> float:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith('{"timestamp"')]
    began, ended = (
        next(datetime.fromisoformat(line["timestamp"]) for line in lines if line["event"] == name)
        for name in ("phase.started", "phase.finished")
    )
    return (ended - began).total_seconds()


def table(rounds: Mapping[int | None, list[Spent]], count: int) -> Table:
    """Return a row for each number of workers: medians, and what a database costs in milliseconds of a processor."""
    result = Table(caption="medians; milliseconds of the processor are for each database", caption_justify="left")
    headings = (
        "workers",
        "s",
        "phase s",
        "efficiency",
        "phase's",
        "cores busy",
        "others'",
        "coordinator",
        "workers",
        "server",
    )
    for heading in (*headings, "queue", "messages", "rows", "queue KiB", "journal KiB"):
        result.add_column(heading, justify="right", no_wrap=True)

    def middle(workers: int | None, what: str) -> float:
        return float(median(getattr(each, what) for each in rounds[workers]))

    for workers in rounds:
        slots = workers or 1
        each_ms = (middle(workers, f"{who}_s") / count * 1000 for who in ("coordinator", "workers", "servers", "queue"))
        counts = (middle(workers, what) / count for what in ("messages", "rows", "queue_bytes", "journal_bytes"))
        messages, rows, queue_bytes, journal_bytes = counts
        result.add_row(
            "1, no queue" if workers is None else str(workers),
            *(f"{middle(workers, what):.2f}" for what in ("duration_s", "phase_s")),
            *(f"{middle(1, what) / (slots * middle(workers, what)):.2f}" for what in ("duration_s", "phase_s")),
            f"{middle(workers, 'processor_s') / middle(workers, 'duration_s'):.2f}",
            f"{middle(workers, 'others'):.2f}",
            *(f"{each:.1f}" for each in each_ms),
            *(f"{each:.1f}" for each in (messages, rows, queue_bytes / 1024, journal_bytes / 1024)),
        )
    return result


@click.command()
@click.option("--databases", "count", type=click.IntRange(min=1, max=500), default=256, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), multiple=True, default=(1, 2, 4, 8, 16), show_default=True)
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, help="Rounds that count.")
@click.option("--wait", "wait_s", type=float, default=_WAIT_S, show_default=True, help="Of each migration, in seconds.")
@click.option("--queue-only", is_flag=True, help="Leave out what takes no queue.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write every single figure.")
def _main(
    count: int, workers: tuple[int, ...], repeat: int, wait_s: float, file: Path | None, *, queue_only: bool
) -> None:
    """Measure a deploy of migrations that wait, with so many workers, in rounds of one run each."""
    sizes: list[int | None] = [*([] if queue_only else [None]), *sorted({1, *workers})]
    rounds: dict[int | None, list[Spent]] = {each: [] for each in sizes}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="smooth-scaling-")))
        made = (PostgresServer(max_connections=600, max_prepared_transactions=600) for _ in range(2))
        server, other = (stack.enter_context(each) for each in made)
        fleet = WaitingFleet(server, other, directory, count, wait_s)
        for number in range(repeat):
            # No size is always the one that follows another.
            for each in sizes[number % len(sizes) :] + sizes[: number % len(sizes)]:
                fleet.prepare()
                rounds[each].append(fleet.deploy(each))
                Console(stderr=True).print(f"[dim]{each} {rounds[each][-1]}[/]", highlight=False)
    Console(width=200).print(table(rounds, count))
    if file is not None:
        found = {
            str(size): [{name: getattr(each, name) for name in Spent.__slots__} for each in runs]
            for size, runs in rounds.items()
        }
        file.write_text(json.dumps({"databases": count, "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    _main()
