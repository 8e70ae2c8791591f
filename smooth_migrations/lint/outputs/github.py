"""Annotations that GitHub's runner shows beside the lines of a pull request (its workflow commands)."""

from collections.abc import Iterator
from typing import Final

from smooth_migrations.lint.outputs.linted import Linted
from smooth_migrations.protocol.linting import Level

__all__ = ["annotations"]

_COMMANDS: Final = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def annotations(linted: Linted) -> str:
    """Return a line for every finding that is not allowed."""
    return "\n".join(_lines(linted))


def _lines(linted: Linted) -> Iterator[str]:
    for found in linted.findings:
        if found.allowed is None:
            file, title = _escaped(linted.named(found.file), ":,"), _escaped(found.code, ":,")
            message = _escaped(f"{found.migration}: {found.message}" + (f" ({found.hint})" if found.hint else ""))
            yield f"::{_COMMANDS[found.level]} file={file},line={found.line},title={title}::{message}"


def _escaped(text: str, more: str = "") -> str:
    # A per cent sign first: it is what the others become.
    for letter in ("%", "\r", "\n", *more):
        text = text.replace(letter, f"%{ord(letter):02X}")
    return text
