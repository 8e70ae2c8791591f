"""The generated pages are what the program says of itself."""

import pytest

from docs_build import exit_codes_page
from docs_build.pages import DOCS, PAGES
from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.event_words import EVENTS, KEYS
from smooth_orchestrator.events import EventName, json_schema
from smooth_orchestrator.report import RunOutcome


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_is_generated_now(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: python -m docs_build"


def test_every_event_and_every_key_is_said_in_words() -> None:
    assert set(EVENTS) == set(EventName)
    assert set(KEYS) == set(json_schema()["properties"])


def test_every_outcome_stands_on_the_page_of_exit_codes() -> None:
    rows = [line for line in exit_codes_page.page().splitlines() if line.startswith("| **")]
    assert {row.split("`")[1] for row in rows} == set(RunOutcome)


def test_every_table_of_a_plan_stands_on_its_page() -> None:
    page = PAGES["reference/plan.md"]()
    assert [name for name in PlanFile.model_fields if f"[{name}" not in page and f"| `{name}` |" not in page] == []
