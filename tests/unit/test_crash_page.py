"""The page of crash points is what is tested."""

from pathlib import Path

from tests.acceptance import test_recovery
from tests.support.crash_page import crashes, page

_PAGE = Path(__file__).parents[2] / "docs/reference/crash-points.md"


def test_the_page_is_what_is_tested() -> None:
    # `python -m tests.support.crash_page > docs/reference/crash-points.md` writes it anew.
    assert _PAGE.read_text(encoding="utf-8") == page()


def test_every_case_of_the_tests_is_on_the_page() -> None:
    tested = {
        f"{name}[{case.id}]"
        for name, test in vars(test_recovery).items()
        for mark in getattr(test, "pytestmark", [])
        if name.startswith("test_a_crash_")
        for case in mark.args[1]
    }
    assert tested == {crash.name for crash in crashes()}
