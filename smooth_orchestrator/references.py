"""What a plan refers to in the environment of the command."""

import re
from collections.abc import Mapping
from typing import Final

from smooth_orchestrator.errors import BadValue

__all__ = ["expand", "without_references"]

_REFERENCE: Final = re.compile(r"(?P<escaped>\$\$\{)|\$\{(?P<name>[^}]*)(?P<closed>\}?)")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Return a text with each `${NAME}` replaced; `$${` stands for a plain `${`. Pure.

    Args:
        text: of a plan.
        environ: where the names are looked up.

    Raises:
        BadValue: a name is not there, or is none. It quotes no value.
    """
    missing: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        if not match["closed"] or not _NAME.fullmatch(match["name"]):
            raise BadValue("holds a ${ that is not ${NAME}", "write $${ for a plain ${")
        if match["name"] not in environ:
            missing.append(match["name"])
        return environ.get(match["name"], "")

    expanded = _REFERENCE.sub(value_of, text)
    if missing:
        names = ", ".join(dict.fromkeys(missing))
        raise BadValue(f"not set in the environment: {names}")
    if "\0" in expanded:
        raise BadValue("must be a text without NUL characters")
    return expanded


def without_references(text: str) -> str:
    """Return what of a text stands in the plan itself. Pure."""
    return _REFERENCE.sub("", text)
