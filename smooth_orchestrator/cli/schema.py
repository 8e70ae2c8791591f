"""The plan's JSON Schema, for editors."""

import click

__all__ = ["schema"]


@click.command
def schema() -> int:
    """Print the plan's JSON Schema, for editors."""
    from smooth_orchestrator.cli.execution import write_json  # noqa: PLC0415 - slow to import, and not for `--help`
    from smooth_orchestrator.schema import json_schema  # noqa: PLC0415 - the same

    write_json(json_schema())
    return 0
