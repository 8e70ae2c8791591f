"""Run Django's own suites with either command, and print what came of them."""

import json
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import click
import django
from rich.console import Console
from rich.table import Table

from tests.django_suites.source import unpacked_tests
from tests.django_suites.suites import SQLITE, SUITES, UNDONE, Comparison, Databases, compare
from tests.support.postgres_server import THROW_AWAY, PostgresServer


@contextmanager
def _sqlite() -> Iterator[Databases]:
    yield SQLITE


@contextmanager
def _postgresql() -> Iterator[Databases]:
    with PostgresServer(settings=THROW_AWAY) as server:
        yield {alias: server.django(alias) for alias in SQLITE}


_VENDORS: Final[Mapping[str, Callable[[], AbstractContextManager[Databases]]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}


def _table(comparisons: Sequence[Comparison]) -> Table:
    table = Table("vendor", "suite", title=f"Django {django.get_version()}, Python {platform.python_version()}")
    for heading in ("run", "skipped", "failed (stock)", "failed (ours)", "loaded", "s (stock)", "s (ours)"):
        table.add_column(heading, justify="right")
    for found in comparisons:
        stock, ours = found.stock, found.ours
        figures = (ours.run, len(ours.skipped), len(stock.failed), len(ours.failed), ours.loaded)
        durations = (f"{outcome.duration_s:.1f}" for outcome in (stock, ours))
        table.add_row(found.vendor, found.suite, *map(str, figures), *durations)
    return table


def _document(comparisons: Sequence[Comparison]) -> dict[str, object]:
    return {
        "version": 1,
        "django": django.get_version(),
        "python": platform.python_version(),
        "comparisons": [asdict(found) | {"new_failures": sorted(found.new_failures)} for found in comparisons],
    }


@click.command()
@click.argument("labels", nargs=-1)
@click.option("--vendor", "vendors", type=click.Choice([*_VENDORS]), multiple=True, help="Only this one.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where to write everything, with tracebacks.")
def _main(labels: tuple[str, ...], vendors: tuple[str, ...], file: Path | None) -> None:
    """Run Django's own suites, or the LABELS given, with migrate and with apply_migrations in its place."""
    console = Console(width=max(Console().width, 110), highlight=False)
    suites = {"chosen": labels} if labels else SUITES
    comparisons = []
    with unpacked_tests() as sources:
        for vendor in vendors or _VENDORS:
            with _VENDORS[vendor]() as databases:
                comparisons += [compare(vendor, suite, suites[suite], databases, sources) for suite in suites]
    console.print(_table(comparisons))
    for found in comparisons:
        for test in sorted(found.new_failures):
            console.print(f"{found.vendor}: {test} fails with ours alone: {UNDONE.get(test, 'why is not known')}")
    if file is not None:
        file.write_text(json.dumps(_document(comparisons), indent=2) + "\n")
    unexplained = [f"{found.vendor}: {line}" for found in comparisons for line in found.unexplained]
    if unexplained:
        raise click.ClickException("\n".join(["no drop-in:", *unexplained]))


if __name__ == "__main__":
    _main()
