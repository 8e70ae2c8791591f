"""The commands that deploy or settle a deploy, and those that say beforehand what one would do."""

from typing import TYPE_CHECKING

import click

from smooth_orchestrator.cli.options import Invocation, takes_plan

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile
    from smooth_orchestrator.report import Report
    from smooth_orchestrator.secrets import Masker

__all__ = ["check", "deploy", "plan", "recover"]

# Every import within a command keeps `--help`, `--version` and shell completion fast, and that of the runner keeps a
# bad plan's report from waiting for database drivers.


@click.command
@takes_plan
def deploy(invocation: Invocation) -> int:
    """Expand every database, all or none."""
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Report":
        from smooth_orchestrator import runner  # noqa: PLC0415 - see above

        return await runner.deploy(file, run_id=invocation.run_id, masker=masker)

    return execution.report(invocation, work)


@click.command
@takes_plan
def plan(invocation: Invocation) -> int:
    """Show what would run on every database; change nothing."""
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Report":
        from smooth_orchestrator import runner  # noqa: PLC0415 - see above

        return await runner.plan(file, run_id=invocation.run_id, masker=masker)

    return execution.report(invocation, work)


@click.command
@takes_plan
def check(invocation: Invocation) -> int:
    """Look for whatever would stop a deploy; change nothing."""
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Report":
        from smooth_orchestrator import runner  # noqa: PLC0415 - see above

        return await runner.check(file, run_id=invocation.run_id, masker=masker)

    return execution.report(invocation, work)


@click.command
@takes_plan
@click.option("--commit", "forced", flag_value="commit", help="Commit what is in doubt, where no journal tells.")
@click.option("--abort", "forced", flag_value="abort", help="Take it back, where no journal tells.")
def recover(invocation: Invocation, forced: str | None) -> int:
    """Settle what an interrupted run left, by its decision."""
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Report":
        from smooth_orchestrator import runner  # noqa: PLC0415 - see above
        from smooth_orchestrator.events import Decision  # noqa: PLC0415 - see above

        decision = Decision(forced) if forced else None
        return await runner.recover(file, run_id=invocation.run_id, masker=masker, forced=decision)

    return execution.report(invocation, work)
