"""The list of decisions, made of their files' titles."""

from pathlib import Path
from typing import Final

__all__ = ["page"]

_DECISIONS: Final = Path(__file__).parents[1] / "docs/adr"

_HEAD: Final = """\
# Decisions

What would be dear to reverse, each with what it was decided against. [Architecture](../architecture.md) is the place to
begin reading.

"""


def page() -> str:
    """Return it."""
    return _HEAD + "".join(f"- [{_title(path)}]({path.name})\n" for path in sorted(_DECISIONS.glob("[0-9]*.md")))


def _title(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return next(file).removeprefix("# ").strip()
