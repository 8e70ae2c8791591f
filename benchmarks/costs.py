"""What a session, a statement, a record of the journal and a message cost of a processor: `python -m benchmarks.costs`.

Each is done many times in this process, as the coordinator does it, against a server of its own.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final, Literal

import anyio
import asyncpg
import click
from rich.console import Console
from rich.table import Table

from benchmarks.processor_time import spent_s
from smooth_orchestrator.journal import RecordKind, open_journal
from smooth_orchestrator.remote.post import Post, Side
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer

_TIMES: Final = 400
_AT_ONCE: Final = 16
# As long as what a worker says of a migration.
_BODY: Final = "x" * 300
_DATA: Final = {"steps": [{"app": "demo", "name": "0002", "backwards": False, "fake": False, "digest": "d" * 64}]}

_Work = Callable[[PostgresDatabase], Awaitable[None]]


async def _sessions(database: PostgresDatabase, *, ssl: Literal["disable", "prefer"]) -> None:
    for _ in range(_TIMES):
        (await asyncpg.connect(**database.asyncpg, ssl=ssl, timeout=10.0, command_timeout=10.0)).terminate()


async def _statements(database: PostgresDatabase) -> None:
    connection = await asyncpg.connect(**database.asyncpg, statement_cache_size=0)
    for _ in range(_TIMES):
        await connection.fetch("SELECT $1::int AS number", 1)
    await connection.close()


async def _records(database: PostgresDatabase, *, at_once: int) -> None:
    async with open_journal(database.dsn, directory=Path.cwd()) as journal:
        for number in range(_TIMES // at_once):
            async with anyio.create_task_group() as group:
                for each in range(at_once):
                    name = f"shards:shard_{number}_{each}"
                    group.start_soon(partial(journal.append, "r1", RecordKind.HELD, database=name, data=_DATA))


async def _messages(database: PostgresDatabase, *, at_once: int) -> None:
    taken = 0
    all_taken = anyio.Event()

    def take(_text: str) -> None:
        nonlocal taken, all_taken
        taken += 1
        if taken % at_once == 0:
            all_taken.set()

    async with Post(database.dsn, Side.COORDINATOR).open() as ours, Post(database.dsn, Side.WORKER).open() as theirs:
        for each in range(at_once):
            await ours.begin(f"s{each}", "one")
            await ours.join(f"s{each}", take)
            await theirs.join(f"s{each}", take)
        for _ in range(_TIMES // at_once):
            all_taken = anyio.Event()
            for each in range(at_once):
                ours.send(f"s{each}", _BODY)
            await all_taken.wait()


_KINDS: Final[dict[str, _Work]] = {
    "a session": partial(_sessions, ssl="disable"),
    "a session, asking for TLS where there is none": partial(_sessions, ssl="prefer"),
    "a statement": _statements,
    "a record by itself": partial(_records, at_once=1),
    f"a record of {_AT_ONCE} at once": partial(_records, at_once=_AT_ONCE),
    "a message by itself, both sides": partial(_messages, at_once=1),
    f"a message of {_AT_ONCE} at once, both sides": partial(_messages, at_once=_AT_ONCE),
}


def _measured(server: PostgresServer, work: _Work) -> tuple[float, float, float]:
    """Return seconds of this process, of the server, and of the wall clock, for one of many."""
    with temporary_database(server) as database:
        before_s, began_s = spent_s(server.pid), time.perf_counter()
        own_s = time.process_time()
        anyio.run(work, database)
        own_s, took_s = time.process_time() - own_s, time.perf_counter() - began_s
        return own_s / _TIMES, (spent_s(server.pid) - before_s) / _TIMES, took_s / _TIMES


@click.command()
@click.option("--repeat", type=click.IntRange(min=1), default=5, show_default=True)
def _main(repeat: int) -> None:
    """Measure in turns, and print medians in milliseconds."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in _KINDS}
    with PostgresServer() as server:
        for _ in range(1 + repeat):
            for name, work in _KINDS.items():
                found[name].append(_measured(server, work))
    result = Table()
    for heading in ("ms", "this process", "server", "until it is done"):
        result.add_column(heading, justify="left" if heading == "ms" else "right")
    for name, runs in found.items():
        result.add_row(name, *(f"{1000 * median(column):.2f}" for column in zip(*runs[1:], strict=True)))
    Console().print(result)


if __name__ == "__main__":
    _main()
