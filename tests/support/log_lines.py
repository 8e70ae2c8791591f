"""Read a log as its users' tools do: line by line, each checked against the published schema."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["log_lines"]

_SCHEMA = Path(__file__).parents[2] / "docs/reference/events.schema.json"


def log_lines(text: str) -> list[dict[str, Any]]:
    """Return the log's lines; a line that is no event of the schema, or the lack of a last newline, fails the test."""
    assert not text or text.endswith("\n"), text
    validator = _validator()
    # Not `splitlines`: a line of the log ends where a pipe's reader sees its end, and nowhere else.
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    for line in lines:
        mistakes = [error.message for error in validator.iter_errors(line)]
        assert not mistakes, (line, mistakes)
    return lines


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(_SCHEMA.read_text()))
