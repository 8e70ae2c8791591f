"""What was found, for people and for programs. Needs the standard library alone: a coordinator writes it, too."""

from collections.abc import Callable, Mapping
from typing import Final

from smooth_migrations.lint.outputs.github import annotations
from smooth_migrations.lint.outputs.linted import Linted
from smooth_migrations.lint.outputs.machine import report
from smooth_migrations.lint.outputs.sarif import log
from smooth_migrations.lint.outputs.text import text

__all__ = ["OUTPUTS", "Linted"]

OUTPUTS: Final[Mapping[str, Callable[[Linted], str]]] = {
    "text": text,
    "json": report,
    "sarif": log,
    "github": annotations,
}
