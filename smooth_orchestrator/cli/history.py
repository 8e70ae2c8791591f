"""The commands that say how the databases are and what earlier runs did."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from smooth_orchestrator.cli.deploying import run_command
from smooth_orchestrator.cli.options import Invocation, takes_format, takes_plan, tells_metrics

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile
    from smooth_orchestrator.journal.base import RunSummary
    from smooth_orchestrator.report import Report
    from smooth_orchestrator.secrets import Masker

__all__ = ["report", "runs", "status"]

# Imports stand within the commands for the reason given in `smooth_orchestrator.cli.deploying`.


@click.command
@takes_plan
@tells_metrics
@takes_format
def status(invocation: Invocation) -> int:
    """Show every database: its last run, and what is pending or in doubt."""
    return run_command(invocation, "status")


@click.command
@takes_plan
@takes_format
def runs(invocation: Invocation) -> int:
    """List the deploy's runs."""
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> tuple["RunSummary", ...]:
        del masker  # it is known to the process
        from smooth_orchestrator import api  # noqa: PLC0415 - see above

        return await api.runs(file)

    def show(found: tuple["RunSummary", ...], masker: "Masker") -> int:
        from smooth_orchestrator.render import print_runs  # noqa: PLC0415 - see above
        from smooth_orchestrator.report import runs_to_dict  # noqa: PLC0415 - see above
        from smooth_orchestrator.tables import table_of_runs  # noqa: PLC0415 - see above

        if invocation.as_json:
            execution.write_json(masker.mask(runs_to_dict(found)))
        else:
            masked = [replace(run, error=masker.mask(run.error)) for run in found]
            if invocation.form is None:
                execution.write(lambda stream: print_runs(masked, stream))
            else:
                deploy = masked[0].deploy if masked else invocation.plan.name
                execution.write_table(table_of_runs(deploy, masked), invocation.form)
        return 0

    return execution.execute(invocation, work, show)


@click.command
@click.option("--run", metavar="RUN", help="The run; the last one unless given.")
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="FILE", help="Write it as a web page, too.")
@takes_plan
def report(invocation: Invocation, run: str | None, page: Path | None) -> int:
    """Show the report of one run; the exit code is that run's."""
    if page is not None:
        from smooth_orchestrator.cli.paging import report_with_page  # noqa: PLC0415 - see above

        return report_with_page(invocation, run, page)
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Report":
        del masker  # it is known to the process
        from smooth_orchestrator import api  # noqa: PLC0415 - see above

        return await api.report(file, run=run)

    return execution.report(invocation, work)
