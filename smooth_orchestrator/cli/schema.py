"""What other tools read of the program itself: the plan's JSON Schema, and the names of the crash points."""

import click

__all__ = ["failpoints", "schema"]


@click.command
def schema() -> int:
    """Print the plan's JSON Schema, for editors."""
    from smooth_orchestrator.cli.execution import write_json  # noqa: PLC0415 - slow to import, and not for `--help`
    from smooth_orchestrator.schema import json_schema  # noqa: PLC0415 - the same

    write_json(json_schema())
    return 0


@click.command
def failpoints() -> int:
    """Print the names of the crash points, one a line."""
    from smooth_migrations.protocol.failpoints import COORDINATOR, WORKER  # noqa: PLC0415 - not for `--help`
    from smooth_orchestrator.cli.execution import write  # noqa: PLC0415 - slow to import, and not for `--help`

    write(lambda stream: print(*COORDINATOR, *WORKER, sep="\n", file=stream))
    return 0
