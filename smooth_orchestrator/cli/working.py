"""The command that makes a machine one of a fleet."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from smooth_orchestrator.cli.options import Invocation, takes_plan

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile
    from smooth_orchestrator.secrets import Masker

__all__ = ["worker"]


def _names(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    if not names:
        # Such as a variable of the environment that is not set: a machine that serves all is not what was meant.
        raise click.BadParameter("names no project; leave it out to serve all")
    return names


@click.command
@takes_plan
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    help="How many worker processes at a time; one for each core, and at least one for each project, unless given.",
)
@click.option("--projects", metavar="NAMES", callback=_names, help="Serve these alone, such as shop,billing.")
def worker(invocation: Invocation, *, concurrency: int | None, projects: tuple[str, ...]) -> int:
    """Serve a fleet's coordinators beside the projects' code, until SIGTERM."""
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - keeps `--help` fast

    async def work(file: "PlanFile", masker: "Masker") -> int:
        from smooth_orchestrator.remote import working  # noqa: PLC0415 - Procrastinate, for a fleet alone

        most = concurrency or max(os.cpu_count() or 1, len(projects or file.projects))
        await working.work(file, masker, concurrency=most, projects=projects)
        return 0

    # It has no run of its own that a table could show: what it says are its log lines.
    return execution.execute(replace(invocation, hides_progress=True), work, lambda code, _masker: code)
