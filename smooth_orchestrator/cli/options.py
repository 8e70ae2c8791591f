"""What every command that works with a plan takes beside it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from smooth_orchestrator.cli.group import WORDS
from smooth_orchestrator.run_ids import CHOSEN, new_run_id

__all__ = ["Invocation", "takes_format", "takes_options", "takes_plan", "tells_metrics"]

# The values of `LogFormat` and `LogLevel`, whose module takes too long to import for `--help`.
_LOG_FORMATS: Final = ("auto", "json", "console", "journald")
# `json` is what --json gives; the others that are no text are the keys of `WRITERS`.
_FORMATS: Final = ("text", "markdown", "json", "html")
_LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One command as it was asked for.

    Args:
        command: its name.
        plan: the plan file, which `init` is to write.
        as_json: whether stdout gets the machine report.
        log_format: how log lines on stderr look.
        log_level: the least level that is logged.
        log_file: a file that gets every log line too.
        run_id: the run's id, the caller's or a new one.
        metrics_file: a file for node_exporter that gets the command's metrics.
        pushgateway: the URL of a Pushgateway that gets them.
        hides_progress: whether a terminal shows log lines alone.
        words: of the command line, after the command's name.
        form: `markdown` or `html` for tables to be pasted; None for what `as_json` says.
    """

    command: str
    plan: Path
    as_json: bool
    log_format: str
    log_level: str
    log_file: Path | None
    run_id: str
    hides_progress: bool
    words: tuple[str, ...]
    metrics_file: Path | None = None
    pushgateway: str | None = None
    form: str | None = None


def _check_run_id(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
    if value is None:
        return new_run_id()
    if not CHOSEN.fullmatch(value):
        raise click.BadParameter("write 1 to 64 letters, digits, dots, - and _")
    return value


_FILE: Final = click.Path(path_type=Path)

# The last one is shown first.
_PARAMETERS: Final[tuple[Callable[[Callable[..., int]], object], ...]] = (
    click.option(
        "--no-progress", "hides_progress", is_flag=True, help="Show no progress on a terminal, but all log lines."
    ),
    click.option("--run-id", metavar="ID", callback=_check_run_id, help="Name the run; a new name unless given."),
    click.option(
        "--log-level", type=click.Choice(_LOG_LEVELS), default="info", show_default=True, help="The least level logged."
    ),
    click.option(
        "--log-file",
        type=_FILE,
        metavar="FILE",
        help="Append every log line to a file too, as JSON; opened anew once it was moved.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(_LOG_FORMATS),
        default="auto",
        show_default=True,
        help="How log lines look; auto is JSON unless stderr is a terminal; journald: for systemd's journal.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Write the machine report to stdout."),
)


def takes_plan(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command PLAN and the options of every command, and call it with an `Invocation`."""
    return click.argument("plan", type=_FILE)(takes_options(function))


def takes_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of every command, and call it with an `Invocation`; it has a parameter `plan`."""

    @functools.wraps(function)
    def command(**given: Any) -> int:  # noqa: ANN401 - what click makes of the command line
        own = {name: given.pop(name) for name in Invocation.__slots__ if name in given}
        if own.get("form") in {"text", "json"}:
            own |= {"as_json": own.pop("form") == "json"}
        context = click.get_current_context()
        invocation = Invocation(command=context.info_name or "", words=context.meta.get(WORDS, ()), **own)
        return function(invocation, **given)

    for parameter in _PARAMETERS:
        parameter(command)
    return command


def tells_metrics(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options by which its metrics are told; stands below `takes_plan`."""
    click.option(
        "--pushgateway",
        metavar="URL",
        envvar="SMOOTH_PUSHGATEWAY",
        help="Push the run's metrics to this Pushgateway; or name it in SMOOTH_PUSHGATEWAY.",
    )(function)
    click.option("--metrics-file", type=_FILE, metavar="FILE", help="Write the run's metrics for node_exporter.")(
        function
    )
    return function


takes_format: Final = click.option(
    "--format", "form", type=click.Choice(_FORMATS), help="What is written; text, or json with --json."
)
"""Gives a command the choice of tables that can be pasted elsewhere."""
