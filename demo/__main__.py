"""Tell the story and check every claim that it makes; the exit status is 0 only when all of them held."""

import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from demo.deploys import Deployed, deploy, plan, write_page
from demo.fleet import LAST, Fleet
from tests.support.dump import diff
from tests.support.shop import check_out

PAGE = Path(__file__).parents[1] / "build" / "demo-report.html"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RELEASE_2 = {
    "catalog.0003_product_stock",
    "catalog.0004_review",
    "orders.0002_order_total",
    "orders.0003_fill_totals",
    "orders.0004_order_paid_placed_at",
}
_TOLD = {"migration.failed", "deploy.decided", "database.rolled_back", "deploy.rolled_back"}
_KEYS = ("level", "event", "database", "app", "migration", "decision", "outcome", "error")


class _Story:
    def __init__(self, console: Console, directory: Path, fleet: Fleet) -> None:
        self._console = console
        self._directory = directory
        self._fleet = fleet
        self._kept = True

    def tell(self) -> bool:
        self._open_the_shops()
        self._succeed()
        self._fail()
        return self._kept

    def _open_the_shops(self) -> None:
        self._chapter("Five databases at release 1, by stock manage.py migrate")
        project = check_out(1, self._directory / "release1")
        for name, place in self._fleet.places.items():
            self._fleet.open_for_business(name, project)
            self._console.print(f"  {name:<16}{place.where}")

    def _succeed(self) -> None:
        self._chapter("Release 2: new columns, a new table, a data migration, an index")
        self._console.print(Syntax(plan("release2").strip(), "toml", background_color="default"), "")
        deployed = self._deploy("release2")
        self._claim("exit code 0", deployed.exit_code == 0)
        for name, place in self._fleet.places.items():
            self._claim(f"{name}: all of release 2 is in its django_migrations", place.migrations() >= _RELEASE_2)

    def _fail(self) -> None:
        self._chapter("Release 3: one customer per e-mail address; but the last database holds two")
        self._fleet.plant_duplicate()
        before = self._fleet.dumps()
        deployed = self._deploy("release3")
        self._console.print("\n  The log of the failure (times, ids and tracebacks left out here):")
        for line in deployed.log:
            if line["event"] in _TOLD:
                self._console.out(f"  {json.dumps(_shortened(line))}", highlight=False)
        self._console.print()
        self._claim("exit code 1", deployed.exit_code == 1)
        failed = [entry["database"] for entry in deployed.report["databases"] if entry["outcome"] == "failed"]
        self._claim(f"the report blames {LAST} alone", failed == [LAST])
        after = self._fleet.dumps()
        self._console.print("  [dim]All but the positions of PostgreSQL's sequences, which no rollback moves back:[/]")
        for name in self._fleet.places:
            difference = diff(before[name], after[name])
            self._claim(f"{name}: its dump is the same as before", not difference)
            if difference:
                self._console.out(difference)
        self._console.print()
        written = write_page(self._directory / "deploy.toml", PAGE, self._fleet.databases)
        self._claim(f"a page for a browser tells of this run: {PAGE}", written)

    def _deploy(self, release: str) -> Deployed:
        check_out(int(release[-1]), self._directory / release)
        plan_file = self._directory / "deploy.toml"
        plan_file.write_text(plan(release))
        self._console.print(f'  [bold]$ smooth-orchestrate deploy deploy.toml[/]      [dim]# path = "{release}"[/]')
        deployed = deploy(plan_file, self._directory / f"{release}.log", self._fleet.databases)
        self._console.print(_table(deployed))
        for entry in deployed.report["databases"]:
            if entry["error"]:
                error = entry["error"]
                self._console.out(f"  {entry['database']}: {error['message']}", highlight=False)
                self._console.out(f"  {error.get('detail', '')}", highlight=False)
        return deployed

    def _chapter(self, title: str) -> None:
        self._console.print(f"\n[bold cyan]{title}[/]\n")

    def _claim(self, words: str, held: bool) -> None:  # noqa: FBT001 - a claim and whether it held read well together
        self._kept &= held
        self._console.print(f"  [green]✔[/] {words}" if held else f"  [bold red]✘ not so: {words}[/]", highlight=False)


def _shortened(line: dict[str, object]) -> dict[str, object]:
    short = {key: line[key] for key in _KEYS if line.get(key) is not None}
    if isinstance(error := short.get("error"), dict):
        short["error"] = {key: error[key] for key in ("type", "sqlstate", "message") if error.get(key)}
    return short


def _table(deployed: Deployed) -> Table:
    report = deployed.report
    table = Table(title=f"{report['outcome']}, {report['duration_ms'] / 1000:.1f} s", title_justify="left")
    for heading in ("database", "phase", "tier", "outcome", "applied"):
        table.add_column(heading, justify="right" if heading == "applied" else "left")
    for entry in report["databases"]:
        words = [str(entry[key] or "") for key in ("database", "phase", "tier", "outcome")]
        table.add_row(*words, str(len(entry["applied"])))
    return table


def _leave(number: int, _: object) -> NoReturn:
    # An exception, so that every `with` block ends what it started; a second signal must not disturb that.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _main() -> int:
    for number in _SIGNALS:
        signal.signal(number, _leave)
    started = time.monotonic()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="smooth-demo-") as directory:
        console.print("Starting two PostgreSQL servers …")
        with Fleet.started(Path(directory)) as fleet:
            kept = _Story(console, Path(directory), fleet).tell()
    console.print(f"\nBoth servers are stopped and every other file is gone. {time.monotonic() - started:.0f} s.\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(_main())
