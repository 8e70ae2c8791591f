"""The reference page of the commands, made of what click knows of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import click

from docs_build.markdown import code, table
from smooth_orchestrator.cli import program

__all__ = ["page"]

_HEAD: Final = """\
# Commands

`smooth-orchestrate COMMAND PLAN`; without a command it is `deploy`. [What a plan says](plan.md), [what the exit codes
mean](exit-codes.md). Reports go to stdout, logs and progress to stderr.

"""

_COMMON: Final = """
## Options of every command that takes a plan

`init`, which writes one, takes them too.

"""

_TAIL: Final = """
## Environment

| variable | says |
|---|---|
| `SMOOTH_PUSHGATEWAY` | what `--pushgateway` does, and is the place for a URL with a password |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | where [traces](traces.md) are sent |
| `CI`, `TERM`, `NO_COLOR` | whether a terminal gets [a table, and colours](terminal.md) |
| `SMOOTH_FAILPOINT` | at which of the [crash points](crash-points.md) a process kills itself, for tests |
| `_SMOOTH_ORCHESTRATE_COMPLETE` | that a shell wants its completion: `smooth-orchestrate --help` shows how |

`finalize` is `finalise`. `--help` of each command tells what stands here.
"""

# Where more is told of a command.
_MORE: Final[Mapping[str, str]] = {
    "deploy": "[How it goes](../architecture.md)",
    "plan": "[Which operations are split](expand-and-contract.md)",
    "check": "[Which privileges each command takes](privileges.md)",
    "finalise": "[How to call it from cron, systemd or Kubernetes](../how-to/finalise-from-cron.md)",
    "recover": "[How to settle an interrupted run](../how-to/settle-an-interrupted-run.md)",
    "report": "[How to show a run in a browser](../how-to/show-a-run-in-a-browser.md)",
    "lint": "[How to look at migrations before they are merged](../how-to/lint-migrations.md), [its codes](lint.md)",
    "failpoints": "[Where the tests kill processes](crash-points.md)",
}


def page() -> str:
    """Return it."""
    options = {name: _options(command) for name, command in program.commands.items()}
    common = [name for name in options["deploy"] if all(name in each for each in options.values() if each)]
    sections = [_section(name, command, options[name], common) for name, command in program.commands.items()]
    shared = _table(options["deploy"][name] for name in common)
    return f"{_HEAD}{_overview(program.commands)}\n{''.join(sections)}{_COMMON.lstrip()}{shared}{_TAIL}"


def _overview(commands: Mapping[str, click.Command]) -> str:
    return table(["command", "does"], ([f"[`{name}`](#{name})", _told(each)] for name, each in commands.items()))


def _told(command: click.Command) -> str:
    return (command.help or "").strip()


def _options(command: click.Command) -> dict[str, click.Option]:
    return {each.opts[-1]: each for each in command.params if isinstance(each, click.Option)}


def _section(name: str, command: click.Command, options: Mapping[str, click.Option], common: Iterable[str]) -> str:
    context = click.Context(command, info_name=name)
    arguments = [each.make_metavar(context) for each in command.params if isinstance(each, click.Argument)]
    usage = " ".join(["smooth-orchestrate", name, *arguments, *(["[OPTIONS]"] if options else [])])
    own = [option for written, option in options.items() if written not in common]
    parts = [f"## {name}", f"```text\n{usage}\n```", _told(command)]
    if name in _MORE:
        parts[-1] += f" {_MORE[name]}."
    if own:
        parts.append(_table(own).rstrip())
    return "\n\n".join(parts) + "\n\n"


def _table(options: Iterable[click.Option]) -> str:
    rows = ([code(_written(each)), _default(each), each.help or ""] for each in options)
    return table(["option", "default", "does"], rows)


def _written(option: click.Option) -> str:
    if option.is_flag:
        return " ".join(option.opts)
    metavar = option.metavar or (
        "|".join(option.type.choices) if isinstance(option.type, click.Choice) else option.type.name.upper()
    )
    return f"{' '.join(option.opts)} {metavar}"


def _default(option: click.Option) -> str:
    default: Any = option.default
    return code(default) if option.show_default and default is not None else ""
