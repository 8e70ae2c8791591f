"""The page of the lint's codes is what `--explain` says."""

from pathlib import Path

from tests.support.lint_page import page

_PAGE = Path(__file__).parents[2] / "docs/reference/lint.md"


def test_the_page_is_what_the_rules_say_of_themselves() -> None:
    # `python -m tests.support.lint_page > docs/reference/lint.md` writes it anew.
    assert _PAGE.read_text(encoding="utf-8") == page()
