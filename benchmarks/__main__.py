"""Choose benchmarks, run them on two servers that end with this program, and write down what they took."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

import click
from rich.console import Console

from benchmarks.backfill import BackfillBesideWriters, BackfillOfMoreRows, BackfillOfRows
from benchmarks.commit_window import CommitWindow
from benchmarks.fleets import GivenUp, Limit, OneMore, TakenBack, Tier
from benchmarks.many_databases import ManyDatabases
from benchmarks.measuring import Benchmark, measure
from benchmarks.one_database import OneDatabase
from benchmarks.results import document, table
from benchmarks.scaling import OverQueue, Scaling, WaitingFleet
from benchmarks.site import APPLICATIONS, Site, State
from benchmarks.stall import Stall
from benchmarks.tenants import Tenants
from tests.support.histories import SqliteDatabase
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer

# What is worth measuring of a larger fleet: from zero 100 databases take minutes.
_MOST = {State.NOTHING_PENDING: 1000, State.FIVE_PENDING: 100, State.FROM_ZERO: 16}
_WINDOWS = (20, 100)
_WAITING = (32, 256)
_SOME = (8, 32)
_RESULTS = Path(__file__).with_name("results")


def _of_fleets(
    site: Site, servers: list[PostgresServer], directory: Path, *, counts: Sequence[int], sampled: int
) -> Iterator[Benchmark]:
    def databases(count: int, at: int | None = None) -> dict[str, PostgresDatabase]:
        names = ["default", *(f"shard_{number}" for number in range(2, count + 1))]
        return {
            name: PostgresDatabase(servers[number % len(servers) if at is None else at], f"fleet_{name}")
            for number, name in enumerate(names)
        }

    for state, most in _MOST.items():
        for count in (count for count in counts if count <= most):
            yield ManyDatabases(site, databases(count), state, directory, sampled=sampled)
    for count in (count for count in counts if count in _WINDOWS):
        yield CommitWindow(site, databases(count, 0), directory)
    for count in (count for count in counts if count in _WAITING):
        fleet = WaitingFleet(servers[0], servers[1], directory, count)
        yield OverQueue(fleet)
        for workers in (2, 4, 8, 16):
            yield Scaling(fleet, workers)
    for count in (count for count in counts if count in _SOME):
        yield GivenUp(site, databases(count), directory)
        yield TakenBack(site, databases(count), directory)
        yield OneMore(site, databases(count), directory)
        yield Limit(site, databases(count), directory)
        for tier in ("held_open", "compensated"):
            yield Tier(site, databases(count), directory, tier)
        for state in (State.NOTHING_PENDING, State.FIVE_PENDING):
            # The schemas are on one server.
            yield Tenants(site, databases(count, 0), state, directory)


def _benchmarks(
    site: Site,
    servers: list[PostgresServer],
    directory: Path,
    *,
    counts: Sequence[int],
    sampled: int,
    rows: int,
    reader_s: float,
) -> Iterator[Benchmark]:
    for database in (PostgresDatabase(servers[0], "one"), SqliteDatabase(directory / "one.sqlite3")):
        for state in State:
            yield OneDatabase(site, database, state)
    yield from _of_fleets(site, servers, directory, counts=counts, sampled=sampled)
    for trigger in (False, True):
        yield BackfillOfRows(servers[0], directory, rows, trigger=trigger)
    small, large = (BackfillOfRows(servers[0], directory, each) for each in (max(rows * 3 // 10, 1), rows * 3))
    yield BackfillOfMoreRows(small, large)
    yield BackfillBesideWriters(servers[0], directory, rows)
    yield Stall(servers[0], directory, reader_s)
    yield Stall(servers[0], directory, 0.0, rows)


@click.command()
@click.option("--only", metavar="GLOB", multiple=True, default=["*"], help="Names to run, such as 'deploy/*'.")
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True, help="Pairs of runs that count.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write [default: benchmarks/results/].")
@click.option("--project", type=click.Choice(sorted(APPLICATIONS)), default="helpdesk", show_default=True)
@click.option(
    "--databases",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 4, 8, 16, 20, 32, 100, 1000),
    show_default=True,
    help="How many a deploy covers.",
)
@click.option(
    "--sampled",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="On how many databases at most a loop of migrate is timed; it takes as long for each of the others.",
)
@click.option("--rows", type=click.IntRange(min=1), default=1_000_000, show_default=True, help="How many are filled.")
@click.option("--reader", "reader_s", type=float, default=30.0, show_default=True, help="Seconds of a transaction.")
def _main(
    only: tuple[str, ...],
    repeat: int,
    file: Path | None,
    project: str,
    databases: tuple[int, ...],
    sampled: int,
    rows: int,
    reader_s: float,
) -> None:
    """Measure the product beside Django's own migrate."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    console = Console()
    measurements = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smooth-benchmarks-")))
        # A commit waits for the disk, as it does for a user. The memory for pages is what
        # a server of a machine such as this would be given.
        settings = {"track_commit_timestamp": "on", "shared_buffers": "1GB", "max_locks_per_transaction": "1024"}
        made = (PostgresServer(max_connections=300, max_prepared_transactions=300, settings=settings) for _ in range(2))
        servers = [stack.enter_context(each) for each in made]
        site = Site(project, directory)
        for benchmark in _benchmarks(
            site, servers, directory, counts=databases, sampled=sampled, rows=rows, reader_s=reader_s
        ):
            if any(fnmatchcase(benchmark.name, pattern) for pattern in only):
                console.print(f"[dim]{benchmark.name} …[/]", end=" ", highlight=False)
                measured = measure(benchmark, repeat)
                measurements += [measured, *measured.beside]
                console.print(f"[dim]{measured.ratio:.2f}[/]", highlight=False)
    if not measurements:
        raise click.UsageError(f"no benchmark is named {' or '.join(only)}")
    console.print(table(measurements))
    file = file or _RESULTS / f"{started_at.replace(':', '')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document(measurements, application=project, started_at=started_at), indent=2) + "\n")
    console.print(f"Written to {file}", highlight=False)


if __name__ == "__main__":
    _main()
