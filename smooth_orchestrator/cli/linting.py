"""`smooth-orchestrate lint`: look at migration files before they are deployed."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from smooth_orchestrator.cli.options import Invocation, takes_plan

if TYPE_CHECKING:
    from smooth_migrations.lint.outputs import Linted
    from smooth_orchestrator.config import PlanFile
    from smooth_orchestrator.secrets import Masker

__all__ = ["lint"]

# The keys of `OUTPUTS`, whose module is not for `--help`.
_FORMATS: Final = ("text", "json", "sarif", "github")


@click.command
@takes_plan
@click.option(
    "--since", metavar="REF", help="What was changed or added since this revision of Git, not what is pending."
)
@click.option("--all", "everything", is_flag=True, help="Every migration, each as a deploy by itself.")
@click.option("--format", "output", type=click.Choice(_FORMATS), help="What is written; text, or json with --json.")
def lint(invocation: Invocation, since: str | None, output: str | None, *, everything: bool) -> int:
    """Say what pending migrations would do to two live releases."""
    if since is not None and everything:
        raise click.UsageError("--since and --all exclude each other; give one of them")
    # Imports stand within the commands for the reason given in `smooth_orchestrator.cli.deploying`.
    from smooth_orchestrator.cli import execution  # noqa: PLC0415 - see above

    async def work(file: "PlanFile", masker: "Masker") -> "Linted":
        from smooth_migrations.lint.outputs import Linted  # noqa: PLC0415 - see above
        from smooth_orchestrator import __version__, linting  # noqa: PLC0415 - see above

        reports = await linting.lint(file, masker=masker, since=since, everything=everything)
        return Linted(reports, _here(), __version__, file.deploy.name)

    def show(linted: "Linted", masker: "Masker") -> int:
        from smooth_migrations.lint.outputs import OUTPUTS  # noqa: PLC0415 - see above

        text = masker.text(OUTPUTS[output or ("json" if invocation.as_json else "text")](linted))
        execution.write(lambda stream: print(text, file=stream))
        return linted.exit_code

    return execution.execute(invocation, work, show)


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed: every file is named whole
        return Path()
