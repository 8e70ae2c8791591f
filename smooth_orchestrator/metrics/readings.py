"""What a command's metrics are, by its report and by the events that were heard. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from smooth_orchestrator.doubts import Whose
from smooth_orchestrator.events import EventName
from smooth_orchestrator.metrics.table import Metric
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunOutcome

__all__ = ["Heard", "Reading", "readings"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one metric.

    Args:
        metric: which.
        labels: the values of all its labels, in their order.
        value: in the unit that its name says.
    """

    metric: Metric
    labels: tuple[str, ...]
    value: float


@dataclass(slots=True)
class Heard:
    """What events have told of a run so far."""

    migration_longest_ms: float = 0.0
    gates_ms: float = 0.0
    lock_retries: int = 0

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take note of one event."""
        match event["event"]:
            case EventName.MIGRATION_APPLIED | EventName.MIGRATION_UNAPPLIED:
                self.migration_longest_ms = max(self.migration_longest_ms, event["duration_ms"])
            case EventName.GATE_PASSED | EventName.GATE_FAILED:
                self.gates_ms += event["duration_ms"]
            case EventName.LOCK_RETRY:
                self.lock_retries += 1


def readings(report: Report, heard: Heard) -> list[Reading]:
    """Return the values that a command has to tell; of what it does not know, none."""
    own = (report.deploy or "", report.command)
    return [Reading(metric, (*own, *labels), value) for metric, labels, value in _values(report, heard)]


def _values(report: Report, heard: Heard) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    began_s = report.started_at.timestamp()
    ended_s = began_s + report.duration_ms / 1000
    for outcome in RunOutcome:
        yield Metric.RUN_OUTCOME, (str(outcome),), float(outcome is report.outcome)
    yield Metric.RUN_EXIT_CODE, (), report.exit_code
    yield Metric.RUN_START, (), began_s
    yield Metric.RUN_DURATION, (), report.duration_ms / 1000
    if report.exit_code == 0:
        yield Metric.LAST_SUCCESS, (), ended_s
    if report.outcome is RunOutcome.COMMITTED:
        yield Metric.LAST_COMMIT, (), ended_s
    yield Metric.MIGRATION_LONGEST, (), heard.migration_longest_ms / 1000
    yield Metric.GATES_DURATION, (), heard.gates_ms / 1000
    yield Metric.LOCK_RETRIES, (), heard.lock_retries
    if report.databases:
        yield from _of_databases(report.databases)


def _of_databases(databases: tuple[DatabaseReport, ...]) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
    for outcome in DatabaseOutcome:
        yield Metric.DATABASES, (str(outcome),), sum(each.outcome is outcome for each in databases)
    yield Metric.MIGRATIONS, ("applied",), sum(len(each.applied) for each in databases)
    yield Metric.MIGRATIONS, ("unapplied",), sum(len(each.unapplied) for each in databases)
    yield Metric.LOCK_HOLD_LONGEST, (), max(each.lock_hold_ms for each in databases) / 1000
    yield Metric.CONTRACTS_PENDING, (), sum(len(each.contract_pending) for each in databases)
    if any("prepared" in each.extra for each in databases):
        ages_s = [
            prepared["age_s"]
            for each in databases
            for prepared in (*each.extra.get("prepared", ()), *each.extra.get("prepared_elsewhere", ()))
            if prepared["whose"] != Whose.FOREIGN
        ]
        yield Metric.IN_DOUBT, (), len(ages_s)
        yield Metric.IN_DOUBT_AGE, (), max(ages_s, default=0)
