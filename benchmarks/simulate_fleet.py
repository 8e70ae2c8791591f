"""How long a deploy over a fleet would take that nobody has: `python -m benchmarks.simulate_fleet`.

The program itself deploys, on a clock that jumps to the next moment at which something happens: its runner, phases,
limits, journal, messages and what it does about lost machines are those of a real run. What only takes its time is
simulated: the servers behind asyncpg, what hands sessions to machines, and the processes of workers. How long each
thing takes was measured.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from benchmarks.simulated.fleet import Scenario, Simulated, simulate
from benchmarks.simulated.resources import Costs

__all__ = ["MEASURED", "predictions", "scenarios", "table"]

MEASURED: Final = Costs(
    connect=0.0011,
    statement=0.0003,
    message=0.0001,
    row=0.00013,
    target=0.0075,
    begin=0.9,
    start=0.7,
    inspect=0.02,
    first=0.05,
    apply=0.028,
    prepare=0.003,
    commit=0.009,
    session=0.0035,
    cleared=0.006,
    query=0.0001,
    renewed=0.0015,
    migrate=0.03,
    prepared=0.001,
    ended=0.001,
    stored=0.0003,
    written=0.001,
    round_trip_wait=0.0001,
    commit_wait=0.003,
)
"""What was measured on one machine; see docs/explanation/scale.md."""

_MACHINE: Final = 8


def scenarios(counts: Sequence[int], workers: Sequence[int], phase: int) -> list[tuple[str, Scenario]]:
    """Return what is simulated, and what each is called."""
    found: list[tuple[str, Scenario]] = []
    for count in counts:
        sizes = [Scenario(databases=count, workers=each, phase=phase) for each in workers]
        found += [("", each) for each in sizes]
        last = sizes[-1]
        found.append(("a machine lost every minute", replace(last, lost_every_s=60.0)))
        found.append(("a server four times as slow", replace(last, slow_servers=(1, 4.0))))
        found.append(("one decision for all", replace(last, phase=0)))
    return found


def table(found: Sequence[tuple[str, Scenario, Simulated]]) -> Table:
    """Return a row for each."""
    result = Table(caption="busy: share of the time, of the busiest of its kind", caption_justify="left")
    for heading in (
        *("databases", "workers", "what befalls it", "outcome", "s", "databases/s"),
        *(
            "coordinator",
            "queue",
            "server",
            "machine",
            "prepared",
            "sessions",
            "renewals",
            "lost",
            "messages",
            "rows",
            "MiB",
        ),
    ):
        result.add_column(
            heading, justify="left" if heading in {"what befalls it", "outcome"} else "right", no_wrap=True
        )
    for name, scenario, each in found:
        usage = each.usage
        mib = (usage.message_bytes + usage.row_bytes) / 1024 / 1024
        shares = (f"{100 * each.busy.get(kind, 0.0):.0f} %" for kind in ("coordinator", "queue", "server", "machine"))
        result.add_row(
            f"{scenario.databases:,}",
            str(scenario.workers),
            name,
            str(each.report.outcome),
            f"{each.duration_s:,.0f}",
            f"{scenario.databases / each.duration_s:.0f}",
            *shares,
            *(f"{count:,}" for count in (usage.most_prepared, usage.most_sessions, usage.renewals, usage.lost)),
            *(f"{count / scenario.databases:.1f}" for count in (usage.messages, usage.rows)),
            f"{mib:,.0f}",
        )
    return result


def predictions(measured: Path) -> Table:
    """Return what runs of `benchmarks.scaling` took beside what they are predicted to, on the same cores."""
    document = json.loads(measured.read_text())
    result = Table(
        "workers", "s", "predicted", "deviation", "processor s", "predicted", "deviation", "messages", "predicted"
    )
    cores = os.cpu_count() or 1
    for workers, runs in document["runs"].items():
        if workers == "None":
            continue
        size = int(workers)
        spent = {name: median(run[name] for run in runs) for name in runs[0]}
        scenario = Scenario(
            databases=document["databases"],
            workers=size,
            on_each_machine=size,
            cores=cores,
            each_server=document["databases"],
            shared=True,
            share=1 - spent["others"] / cores,
        )
        found = simulate(scenario, MEASURED)
        processor_s = sum(spent[name] for name in ("coordinator_s", "workers_s", "servers_s", "queue_s"))
        columns = (
            (spent["duration_s"], found.duration_s),
            (processor_s, found.busy["cores"] * cores * found.duration_s),
        )
        result.add_row(
            workers,
            *(
                cell
                for was, said in columns
                for cell in (f"{was:.1f}", f"{said:.1f}", f"{100 * (said / was - 1):+.0f} %")
            ),
            f"{spent['messages']:.0f}",
            str(found.usage.messages),
        )
    return result


@click.command()
@click.option("--databases", "counts", type=click.IntRange(min=1), multiple=True, default=(10_000,), show_default=True)
@click.option("--workers", type=click.IntRange(min=1), multiple=True, default=(1, 10, 50, 200), show_default=True)
@click.option("--phase", type=click.IntRange(min=0), default=500, show_default=True, help="Databases for one decision.")
@click.option("--measured", type=click.Path(path_type=Path), help="What `benchmarks.scaling --json` wrote, to predict.")
def _main(counts: tuple[int, ...], workers: tuple[int, ...], phase: int, measured: Path | None) -> None:
    """Simulate deploys, and say what is busy first."""
    if measured is not None:
        Console(width=120).print(predictions(measured))
        return
    found = []
    for name, scenario in scenarios(counts, workers, phase):
        began_s = time.process_time()
        each = simulate(scenario, MEASURED)
        found.append((name, scenario, each))
        Console(stderr=True).print(
            f"[dim]{scenario} {time.process_time() - began_s:.0f} s of a core[/]", highlight=False
        )
    Console(width=220).print(table(found))


if __name__ == "__main__":
    _main()
