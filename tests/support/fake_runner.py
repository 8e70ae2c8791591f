"""What the command line runs, in a test of the command line alone."""

import types
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from smooth_orchestrator.config import PlanFile
from smooth_orchestrator.journal.base import RunSummary
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunOutcome
from smooth_orchestrator.secrets import Masker

__all__ = ["FakeRunner"]

_STARTED = datetime(2026, 11, 23, 3, 45, 12, tzinfo=UTC)


class FakeRunner(types.ModuleType):
    """Stands for the runner: returns or raises what it is told, and remembers what it was asked.

    Attributes:
        asked: commands, and the run of each.
        given: options of the last one.
        error: raised by each, if there is one.
        extra: told of the only database.
    """

    def __init__(self) -> None:
        super().__init__("smooth_orchestrator.runner")
        self.asked: list[tuple[str, str | None]] = []
        self.given: dict[str, object] = {}
        self.error: Exception | None = None
        self.extra: dict[str, Any] = {}
        for command in ("deploy", "plan", "check", "status"):
            setattr(self, command, self._coroutine(command))

    def _coroutine(self, command: str) -> Callable[..., Any]:
        async def work(file: PlanFile, *, run_id: str, masker: Masker, **given: object) -> Report:
            assert masker.text("open-sesame") == "***"
            self.given = given
            return self._answer(command, file, run_id)

        return work

    async def report(self, file: PlanFile, *, run_id: str | None) -> Report:
        """Return the answer as the report of that run."""
        return self._answer("report", file, run_id)

    async def runs(self, file: PlanFile) -> tuple[RunSummary, ...]:
        """Return one run, whose error holds a secret."""
        self._answer("runs", file, None)
        return (RunSummary("r1", file.deploy.name, "deploy", "digest", _STARTED, error={"message": "open-sesame"}),)

    def _answer(self, command: str, file: PlanFile, run_id: str | None) -> Report:
        self.asked.append((command, run_id))
        if self.error:
            raise self.error
        database = DatabaseReport(
            database="primary",
            project="shop",
            alias="default",
            vendor="sqlite",
            phase="all",
            tier="held_open",
            outcome=DatabaseOutcome.UNCHANGED,
            extra=self.extra,
        )
        return Report(
            command=command,
            deploy=file.deploy.name,
            run_id=run_id or "last",
            outcome=RunOutcome.NOTHING_TO_DO,
            started_at=_STARTED,
            duration_ms=1.0,
            databases=(database,),
        )
