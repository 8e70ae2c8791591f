"""`smooth-orchestrate init`: the first plan of a project."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from smooth_orchestrator.cli.options import Invocation, takes_options

if TYPE_CHECKING:
    from smooth_orchestrator.initial import Initialised
    from smooth_orchestrator.secrets import Masker

__all__ = ["init"]

_PATH: Final = click.Path(path_type=Path)


@click.command
@click.argument("project", type=_PATH)
@click.option(
    "--output", "plan", type=_PATH, metavar="FILE", default="deploy.toml", show_default=True, help="Write this file."
)
@click.option("--settings", metavar="MODULE", help="The project's settings module; what its manage.py names if not.")
@takes_options
def init(invocation: Invocation, project: Path, settings: str | None) -> int:
    """Write a plan for a Django project; overwrite nothing."""
    # Imports stand within the command for the reason given in `smooth_orchestrator.cli.deploying`.
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(masker: "Masker") -> "Initialised":
        from smooth_orchestrator.initial import initialise  # noqa: PLC0415 - see above

        return await initialise(project, invocation.plan, settings=settings, masker=masker, environ=os.environ)

    def show(done: "Initialised", masker: "Masker") -> int:
        if invocation.as_json:
            execution.write_json(masker.mask(_document(done)))
        else:
            execution.write(lambda stream: _print(done, stream, masker))
        return 0

    return execution.execute_alone(invocation, work, show)


def _next(done: "Initialised") -> str:
    return f"smooth-orchestrate check {shlex.quote(str(done.output))}"


def _document(done: "Initialised") -> dict[str, Any]:
    return {
        "version": 1,
        "command": "init",
        "deploy": done.file.deploy.name,
        "exit_code": 0,
        "plan": str(done.output),
        "databases": [{"name": entry.name, "aliases": [*entry.aliases]} for entry in done.entries],
        "left_out": [{"alias": each.alias, "reason": each.reason} for each in done.left_out],
        "next": _next(done),
    }


def _print(done: "Initialised", stream: TextIO, masker: "Masker") -> None:
    from smooth_orchestrator.console import printable  # noqa: PLC0415 - see above

    count = f"{done.databases} database{'s' if done.databases > 1 else ''}"
    lines = [f"Wrote {done.output}, a plan for {count}: read it first."]
    if done.left_out:
        lines.append(f"Left out, as its comments say why: {len(done.left_out)}.")
    lines += ["", f"Next: {_next(done)}"]
    print(*(printable(masker.text(line)) for line in lines), sep="\n", file=stream)
