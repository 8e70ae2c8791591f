"""Reports on terminals whose size is not known, or is nonsense."""

from datetime import UTC, datetime
from io import StringIO

import pytest

from smooth_orchestrator.render import print_report
from smooth_orchestrator.report import Report, RunError, RunOutcome

_FAILED = Report(
    command="deploy",
    deploy="shop",
    run_id="r1",
    outcome=RunOutcome.ROLLED_BACK,
    started_at=datetime(2026, 3, 1, tzinfo=UTC),
    duration_ms=812.4,
    error=RunError("ValueError", "no such shop", migration="orders.0007_total"),
)


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def _shown() -> str:
    terminal = _Terminal()
    print_report(_FAILED, terminal)
    return terminal.getvalue()


@pytest.mark.parametrize(("name", "value"), [("COLUMNS", "0"), ("COLUMNS", "²"), ("COLUMNS", "wide"), ("LINES", "0")])
def test_a_size_that_means_nothing_hides_nothing(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    for variable, usual in {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}.items():
        monkeypatch.setenv(variable, usual)
    as_usual = _shown()
    assert "no such shop" in as_usual
    monkeypatch.setenv(name, value)
    assert _shown() == as_usual
