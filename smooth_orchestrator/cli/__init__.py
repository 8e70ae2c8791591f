"""The command line. What is slow to import is imported by the command that needs it."""

import gc
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Final

import click

from smooth_orchestrator import __version__
from smooth_orchestrator.cli.deploying import check, deploy, finalise, plan, recover, rehearse, rollback
from smooth_orchestrator.cli.group import DeployByDefault
from smooth_orchestrator.cli.history import report, runs, status
from smooth_orchestrator.cli.initial import init
from smooth_orchestrator.cli.interruption import hear_signals
from smooth_orchestrator.cli.linting import lint
from smooth_orchestrator.cli.schema import failpoints, schema
from smooth_orchestrator.cli.streams import abandon, let_go_of_readers_gone, replace_closed
from smooth_orchestrator.cli.working import worker
from smooth_orchestrator.ending import ENDING

__all__ = ["main", "program"]

_NAME: Final = "smooth-orchestrate"

_HELP: Final = f"""Deploy schema changes to every Django database at once, or to none.

`{_NAME} PLAN` is `{_NAME} deploy PLAN`. Reports go to stdout, logs to stderr.
"""

_EPILOG: Final = f"""\b
Exit codes:
  0  done, or nothing to do
  1  failed, and every database is as it was before
  2  usage or plan error; no database was touched
  3  refused before anything was changed
  4  needs an operator; the report says where
  5  another run is at work; this one changed nothing

\b
Shell completion, for bash, zsh (after compinit) and fish:
  eval "$(_SMOOTH_ORCHESTRATE_COMPLETE=bash_source {_NAME})"
  eval "$(_SMOOTH_ORCHESTRATE_COMPLETE=zsh_source {_NAME})"
  _SMOOTH_ORCHESTRATE_COMPLETE=fish_source {_NAME} | source
"""

program: Final = click.version_option(__version__, prog_name=_NAME)(
    DeployByDefault(
        name=_NAME,
        help=_HELP,
        epilog=_EPILOG,
        commands=[
            deploy,
            plan,
            check,
            rehearse,
            finalise,
            rollback,
            recover,
            status,
            runs,
            report,
            lint,
            init,
            worker,
            schema,
            failpoints,
        ],
    )
)
"""The commands as click has them, of which the reference is made."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: its words, without the program's name; the process's own unless given.

    Returns:
        The exit code.
    """
    if argv is None:
        replace_closed()
        # What the imports have made stays to the end, and is not looked through for garbage.
        gc.freeze()
        code = _run(sys.argv[1:])
        let_go_of_readers_gone()
        return code
    # A caller that goes on gets its signals back; a process that ends keeps them held back to its end.
    handlers = {number: signal.getsignal(number) for number in ENDING}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        return _run([*argv])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(words: list[str]) -> int:
    try:
        hear_signals()
        code: int = program.main(words, prog_name=_NAME, standalone_mode=False)
    except click.UsageError as error:
        # Who has chosen JSON for the log gets no other line on stderr: the report on stdout says what is wrong.
        as_json = _json_report(words)
        if as_json or _json_logs(words):
            return _report_misuse(error, as_json=as_json)
        _say(error.show)
        return error.exit_code
    except click.Abort:
        if _json_report(words):
            # Before anything was begun: a reader of reports gets one all the same.
            return _report_interruption(words)
        _say(lambda: click.echo("Interrupted.", err=not _json_logs(words)))
        return 1
    except OSError as error:
        # Help, the version or a completion, of whose output nothing is owed to a reader that is gone.
        reason = error.strerror
        abandon(sys.stdout)
        _say(lambda: click.echo(f"stdout: {reason}", err=True))
        return 1
    return code


def _say(saying: Callable[[], None]) -> None:
    try:
        saying()
    except OSError:
        abandon(sys.stderr)


def _json_logs(words: list[str]) -> bool:
    return _is_said(words, "--log-format", "json", "journald")


def _json_report(words: list[str]) -> bool:
    return "--json" in words or _is_said(words, "--format", "json")


def _is_said(words: list[str], option: str, *values: str) -> bool:
    return any(f"{option}={value}" in words or (option, value) in pairwise(words) for value in values)


def _report_interruption(words: list[str]) -> int:
    from smooth_orchestrator.cli.execution import write_report  # noqa: PLC0415 - most commands are not interrupted
    from smooth_orchestrator.report import Report, RunError, RunOutcome  # noqa: PLC0415 - the same
    from smooth_orchestrator.run_ids import new_run_id  # noqa: PLC0415 - the same

    interruption = Report(
        command=next((word for word in words if word in program.commands), "deploy"),
        deploy=None,
        run_id=new_run_id(),
        outcome=RunOutcome.ROLLED_BACK,
        started_at=datetime.now(UTC),
        duration_ms=0.0,
        error=RunError("Interrupted", "interrupted before anything was begun"),
    )
    return write_report(interruption, as_json=True)


def _report_misuse(error: click.UsageError, *, as_json: bool) -> int:
    from smooth_orchestrator.cli.execution import write_report  # noqa: PLC0415 - most command lines are right
    from smooth_orchestrator.errors import Mistake  # noqa: PLC0415 - the same
    from smooth_orchestrator.report import Report, RunOutcome  # noqa: PLC0415 - the same
    from smooth_orchestrator.run_ids import new_run_id  # noqa: PLC0415 - the same

    command = error.ctx.info_name if error.ctx and error.ctx.parent else None
    misuse = Report(
        command=command or "deploy",
        deploy=None,
        run_id=new_run_id(),
        outcome=RunOutcome.INVALID,
        started_at=datetime.now(UTC),
        duration_ms=0.0,
        errors=(Mistake("command line", error.format_message()),),
    )
    return write_report(misuse, as_json=as_json)
