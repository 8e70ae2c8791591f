"""Which pages are generated, and by what."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from docs_build import commands_page, decisions_page, events_page, exit_codes_page, plan_page

__all__ = ["DOCS", "PAGES"]

DOCS: Final = Path(__file__).parents[1] / "docs"

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "reference/plan.md": plan_page.page,
    "reference/commands.md": commands_page.page,
    "reference/events.md": events_page.page,
    "reference/exit-codes.md": exit_codes_page.page,
    "adr/README.md": decisions_page.page,
}
"""By its place in `docs/`, what makes each of them."""
