from io import StringIO

import pytest
from rich.console import Console

from smooth_orchestrator.console import Plain


@pytest.mark.parametrize(
    "text", ["", "a\tb", "two\n  lines\tand  more ", "ünïcödé 漢字", "[red]x[/red] :smile:", "x " * 400]
)
def test_lines_are_printed_without_rich_as_rich_prints_them(text: str) -> None:
    plain, rich = StringIO(), StringIO()
    Plain(plain).print(text, style="bold")
    Console(file=rich, width=4000, color_system=None, highlight=False, markup=False, emoji=False, soft_wrap=True).print(
        text, style="bold"
    )
    assert plain.getvalue() == rich.getvalue()
