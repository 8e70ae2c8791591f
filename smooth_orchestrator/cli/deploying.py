"""The commands that deploy, rehearse or settle a deploy, and those that say beforehand what one would do."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from smooth_orchestrator.cli.options import Invocation, takes_format, takes_plan, tells_metrics

if TYPE_CHECKING:
    from smooth_orchestrator.config import PlanFile
    from smooth_orchestrator.report import Report
    from smooth_orchestrator.secrets import Masker

__all__ = ["check", "deploy", "finalise", "plan", "recover", "rehearse", "rollback", "run_command"]


def run_command(
    invocation: Invocation,
    command: str,
    *,
    said: Sequence[str] = (),
    **given: Any,  # noqa: ANN401 - of every command
) -> int:
    """Have a command done, and write its report.

    Args:
        invocation: as it was asked for.
        command: the function of `smooth_orchestrator.api`.
        said: options of `recover` that an operator has given.
        given: what it takes beside plan and run id.

    Returns:
        The exit code.
    """
    # Imports within keep `--help`, `--version` and shell completion fast.
    from smooth_orchestrator.head_start import head_start  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Report":
        del masker  # it is known to the process
        from smooth_orchestrator import api  # noqa: PLC0415 - see above

        report: Report = await getattr(api, command)(file, run_id=invocation.run_id, **given)
        return report

    with head_start(invocation.plan):
        from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

        return execution.report(invocation, work, said)


@click.command
@takes_plan
@tells_metrics
@click.option(
    "--no-replay", "runs_all", is_flag=True, help="Run each migration for real on each database, also on those alike."
)
def deploy(invocation: Invocation, *, runs_all: bool) -> int:
    """Expand every database, all or none."""
    return run_command(invocation, "deploy", replay=not runs_all)


@click.command
@takes_plan
@tells_metrics
@takes_format
def plan(invocation: Invocation) -> int:
    """Show what would run on every database; change nothing."""
    return run_command(invocation, "plan")


@click.command
@takes_plan
@tells_metrics
def check(invocation: Invocation) -> int:
    """Look for whatever would stop a deploy; change nothing."""
    return run_command(invocation, "check")


def _milliseconds(_context: click.Context, _parameter: click.Parameter, value: str) -> int:
    from smooth_orchestrator.durations import parse_duration  # noqa: PLC0415 - as above
    from smooth_orchestrator.errors import BadValue  # noqa: PLC0415 - as above

    try:
        duration_ms = parse_duration(value)
    except BadValue as error:
        raise click.BadParameter(f"{error}; {error.hint}" if error.hint else str(error)) from error
    if not duration_ms:
        raise click.BadParameter("a server takes 0 for no limit; write at least 1ms")
    return duration_ms


@click.command
@takes_plan
@tells_metrics
@click.option(
    "--lock-timeout",
    "lock_timeout_ms",
    metavar="DURATION",
    default="1s",
    show_default=True,
    callback=_milliseconds,
    help="Longest wait for one lock, instead of the plan's.",
)
def rehearse(invocation: Invocation, lock_timeout_ms: int) -> int:
    """Run the migrations on every database, and always roll them back."""
    return run_command(invocation, "rehearse", lock_timeout_ms=lock_timeout_ms)


@click.command
@takes_plan
@tells_metrics
def finalise(invocation: Invocation) -> int:
    """Do what deploys have held back, when it is due; all or none."""
    return run_command(invocation, "finalise")


_may_discard = click.option(
    "--discard-data", "discards", is_flag=True, help="Lose rows and values that were written since."
)


@click.command
@takes_plan
@tells_metrics
@click.option("--run", "wanted", metavar="RUN", help="The run; the last one that committed unless given.")
@_may_discard
def rollback(invocation: Invocation, wanted: str | None, *, discards: bool) -> int:
    """Take a committed run back on every database, all or none."""
    return run_command(invocation, "rollback", run=wanted, discard_data=discards)


@click.command
@takes_plan
@tells_metrics
@click.option("--commit", "commits", is_flag=True, help="Commit what is in doubt, where no journal tells.")
@click.option("--abort", "aborts", is_flag=True, help="Take it back, where no journal tells.")
@_may_discard
@click.option(
    "--no-fingerprint",
    "ignores",
    is_flag=True,
    help="Do not compare the schema after an undo with what it was before.",
)
@click.option(
    "--accept",
    "accepted",
    metavar="DATABASE",
    multiple=True,
    help="Take a database as it is that the report has asked you to move by hand; may be repeated.",
)
def recover(
    invocation: Invocation, *, commits: bool, aborts: bool, discards: bool, ignores: bool, accepted: Sequence[str]
) -> int:
    """Settle what an interrupted run left, by its decision."""
    if commits and aborts:
        raise click.UsageError("--commit and --abort exclude each other; give one of them")
    from smooth_orchestrator.events import Decision  # noqa: PLC0415 - as in `run_command`

    decision = Decision.COMMIT if commits else Decision.ABORT if aborts else None
    given = {"--commit": commits, "--abort": aborts, "--discard-data": discards, "--no-fingerprint": ignores}
    said = [option for option, is_given in given.items() if is_given]
    said += [f"--accept {shlex.quote(name)}" for name in accepted]
    return run_command(
        invocation,
        "recover",
        said=said,
        decision=decision,
        discard_data=discards,
        compare_schema=not ignores,
        accept=accepted,
    )
