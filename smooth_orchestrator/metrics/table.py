"""Every metric: one table, from which they are made and documented.

All are gauges of what a command has told last. There is none for each database: a thousand of them would be thousands
of series, and the log and the report tell of each.
"""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["LABELS", "Metric", "help_of", "labels_of", "table_text"]

LABELS = ("deploy", "command")
"""What every metric has: the deploy's name, empty where the plan could not be read, and the command's."""


class Metric(StrEnum):
    """The names, by Prometheus' conventions."""

    RUN_OUTCOME = "smooth_orchestrator_run_outcome"
    RUN_EXIT_CODE = "smooth_orchestrator_run_exit_code"
    RUN_START = "smooth_orchestrator_run_start_timestamp_seconds"
    RUN_DURATION = "smooth_orchestrator_run_duration_seconds"
    LAST_SUCCESS = "smooth_orchestrator_last_success_timestamp_seconds"
    LAST_COMMIT = "smooth_orchestrator_last_commit_timestamp_seconds"
    DATABASES = "smooth_orchestrator_databases"
    MIGRATIONS = "smooth_orchestrator_migrations"
    MIGRATION_LONGEST = "smooth_orchestrator_migration_longest_seconds"
    GATES_DURATION = "smooth_orchestrator_gates_duration_seconds"
    LOCK_HOLD_LONGEST = "smooth_orchestrator_lock_hold_longest_seconds"
    LOCK_RETRIES = "smooth_orchestrator_lock_retries"
    CONTRACTS_PENDING = "smooth_orchestrator_contracts_pending"
    IN_DOUBT = "smooth_orchestrator_in_doubt_transactions"
    IN_DOUBT_AGE = "smooth_orchestrator_in_doubt_oldest_age_seconds"


@dataclass(frozen=True, slots=True)
class _Row:
    """What is said of one metric.

    Args:
        help: what it counts or measures.
        labels: beside `LABELS`, and what they may say.
    """

    help: str
    labels: str = ""


_ROWS = {
    Metric.RUN_OUTCOME: _Row("How the last run ended: 1 for its outcome, 0 for each other one.", "outcome"),
    Metric.RUN_EXIT_CODE: _Row("The exit code of the last run."),
    Metric.RUN_START: _Row("When the last run began."),
    Metric.RUN_DURATION: _Row("How long the last run took."),
    Metric.LAST_SUCCESS: _Row("When a run last ended with exit code 0."),
    Metric.LAST_COMMIT: _Row("When a run last changed databases and kept that."),
    Metric.DATABASES: _Row("Databases of the last run, by what became of them.", "outcome"),
    Metric.MIGRATIONS: _Row("Migrations that the last run applied and that stay, or took back.", "state"),
    Metric.MIGRATION_LONGEST: _Row("How long the slowest migration of the last run took, on one database."),
    Metric.GATES_DURATION: _Row("How long the gates of the last run took, together."),
    Metric.LOCK_HOLD_LONGEST: _Row(
        "For how long the last run held strong locks on tables that existed before; of the longest."
    ),
    Metric.LOCK_RETRIES: _Row(
        "How often the last run rolled a database back and tried again, since a lock was not to be had."
    ),
    Metric.CONTRACTS_PENDING: _Row("Operations that deploys have held back for finalise, of all databases."),
    Metric.IN_DOUBT: _Row("Transactions of deploys that stand prepared. Told by the command status."),
    Metric.IN_DOUBT_AGE: _Row("The age of the oldest of them, 0 without one. Told by the command status."),
}


def help_of(metric: Metric) -> str:
    """Return what a metric counts or measures."""
    return _ROWS[metric].help


def labels_of(metric: Metric) -> tuple[str, ...]:
    """Return the names of a metric's labels."""
    return (*LABELS, *_ROWS[metric].labels.split())


def table_text() -> str:
    """Return the table as the documentation holds it."""
    rows = [
        f"| `{metric}` | {', '.join(f'`{each}`' for each in labels_of(metric))} | {help_of(metric)} |"
        for metric in Metric
    ]
    return "\n".join(["| metric | labels | says |", "|---|---|---|", *rows, ""])
