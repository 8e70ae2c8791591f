"""What a run did, as the machine report of `--json` shows it and as the journal keeps it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

from smooth_migrations.protocol import ErrorInfo
from smooth_orchestrator.errors import Interrupted, Mistake
from smooth_orchestrator.journal.base import RunSummary
from smooth_orchestrator.secrets import Masker

__all__ = [
    "ACCEPT",
    "FILES_GONE",
    "HALTED",
    "IN_DOUBT",
    "MISSING_DATABASE",
    "NO_TRACE",
    "OTHER_FILES",
    "SCHEMA_DIFFERS",
    "UNDECIDED",
    "UNKNOWN_MOVES",
    "UNSEEN",
    "WOULD_DISCARD",
    "DatabaseOutcome",
    "DatabaseReport",
    "Report",
    "RunError",
    "RunOutcome",
    "runs_to_dict",
]

_VERSION: Final = 1

ACCEPT: Final = "--accept"
"""The option of `recover` that names a database which an operator has moved by hand."""

HALTED: Final = "halted"
"""The type of an error that tells of phases which stay as they are, by `on_failure = "halt"`."""

UNDECIDED: Final = "journal_lost"
"""The type of an error that only an operator's decision mends."""

NO_TRACE: Final = "no_trace"
"""The type of an error that names databases of which nobody can tell whether a run was at work on them."""

OTHER_FILES: Final = "other_files"
"""The type of an error that names migration files with which a run that was decided cannot be finished."""

FILES_GONE: Final = "FilesGone"
"""The type of an error that names what is to be taken back, and of which the files are gone or were changed since."""

UNSEEN: Final = "unseen"
"""The type of an error that names databases of which nobody can tell whether anything would be lost."""

UNKNOWN_MOVES: Final = "unknown_moves"
"""The type of an error that names a database on which nobody knows what was moved: an operator moves it by hand."""

MISSING_DATABASE: Final = "missing_database"
"""The type of an error that names a database whose file is not there."""

IN_DOUBT: Final = "in_doubt"
"""The type of an error that names a prepared transaction of which nobody knows that it is ended."""

WOULD_DISCARD: Final = "WouldDiscard"
"""The type of a worker's error that lists what was written since a run and would be lost with it."""

SCHEMA_DIFFERS: Final = "SchemaDiffers"
"""The type of a worker's error that lists what is different in a schema although all was taken back."""


class RunOutcome(StrEnum):
    """How a run ended.

    `HALTED`: it is settled, the phases that had committed stay, by `on_failure = "halt"`, and all else is as it was.
    """

    COMMITTED = "committed"
    HALTED = "halted"
    ROLLED_BACK = "rolled_back"
    NOTHING_TO_DO = "nothing_to_do"
    NOT_DUE = "not_due"
    REFUSED = "refused"
    INVALID = "invalid"
    LOCKED = "locked"
    NEEDS_OPERATOR = "needs_operator"

    @property
    def exit_code(self) -> int:
        """The exit code that this outcome means."""
        return _EXIT_CODES[self]


_EXIT_CODES: Final[Mapping[RunOutcome, int]] = {
    RunOutcome.COMMITTED: 0,
    RunOutcome.NOTHING_TO_DO: 0,
    RunOutcome.NOT_DUE: 0,
    RunOutcome.ROLLED_BACK: 1,
    RunOutcome.INVALID: 2,
    RunOutcome.REFUSED: 3,
    RunOutcome.HALTED: 4,
    RunOutcome.NEEDS_OPERATOR: 4,
    RunOutcome.LOCKED: 5,
}


class DatabaseOutcome(StrEnum):
    """What became of one database.

    `FAILED`: its own work failed, and it is as it was unless the run needs an operator. `ROLLED_BACK`: it had changes,
    which were taken back. `UNCHANGED`: never begun, or nothing to do.
    """

    COMMITTED = "committed"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    UNCHANGED = "unchanged"
    IN_DOUBT = "in_doubt"


@dataclass(frozen=True, slots=True)
class RunError:
    """An error as a report shows it: without a traceback.

    Args:
        type: the exception's class name, or a stable code of ours.
        message: in words.
        sqlstate: the server's SQLSTATE, where there is one.
        migration: `app.name` of the migration at work.
        hint: what to do about it.
        database: the target it happened on; shown where it is not said by the place in the report.
        detail: what the server adds, such as the row that is in the way.
        operation: of the migration, in Django's words, where one was at work.
        place: `file:line` of it, as far as that is known.
        blockers: who held the lock that was not to be had.
    """

    type: str
    message: str
    sqlstate: str | None = None
    migration: str | None = None
    hint: str | None = None
    database: str | None = None
    detail: str | None = None
    operation: str | None = None
    place: str | None = None
    blockers: tuple[str, ...] = ()

    @classmethod
    def of(cls, error: ErrorInfo, *, database: str | None = None) -> Self:
        """Return a worker's or a described error without its traceback and causes."""
        return cls(
            error.type,
            error.message,
            error.sqlstate,
            error.migration,
            error.hint,
            database,
            error.detail,
            error.operation,
            error.place,
            error.blockers,
        )

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` made."""
        return cls(**{**body, "blockers": tuple(body.get("blockers", ()))})

    def to_dict(self) -> dict[str, Any]:
        """Return the report's `error` object."""
        shown = {
            "type": self.type,
            "message": self.message,
            "sqlstate": self.sqlstate,
            "migration": self.migration,
            "hint": self.hint,
        }
        where = {
            "database": self.database,
            "detail": self.detail,
            "operation": self.operation,
            "place": self.place,
            "blockers": list(self.blockers),
        }
        return shown | {key: value for key, value in where.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseReport:
    """What a run did to one database.

    Args:
        database: the target's name in the plan.
        project: its project.
        alias: its alias in the project's settings.
        vendor: `postgresql`, `sqlite`, …; None while nobody has asked the project.
        phase: its phase.
        tier: the tier it was deployed in; None while undetermined.
        outcome: what became of it.
        applied: `app.name` of what was applied and stays.
        unapplied: `app.name` of what was taken back.
        contract_pending: what waits for `finalise`, described.
        lock_hold_ms: for how long strong locks on tables that existed before were held.
        error: why it failed.
        extra: a command's own keys, such as the `migrations` of `plan`; JSON values.
    """

    database: str
    project: str
    alias: str
    vendor: str | None
    phase: str
    tier: str | None
    outcome: DatabaseOutcome
    applied: tuple[str, ...] = ()
    unapplied: tuple[str, ...] = ()
    contract_pending: tuple[str, ...] = ()
    lock_hold_ms: float = 0.0
    error: RunError | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the report's object for this database."""
        return {
            "database": self.database,
            "project": self.project,
            "alias": self.alias,
            "vendor": self.vendor,
            "phase": self.phase,
            "tier": self.tier,
            "outcome": str(self.outcome),
            "applied": list(self.applied),
            "unapplied": list(self.unapplied),
            "contract_pending": list(self.contract_pending),
            "lock_hold_ms": self.lock_hold_ms,
            "error": self.error.to_dict() if self.error else None,
            **self.extra,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` made; keys it does not know are `extra`."""
        own = {
            "outcome": DatabaseOutcome(body["outcome"]),
            "error": RunError.from_dict(body["error"]) if body["error"] else None,
            **{key: tuple(body[key]) for key in ("applied", "unapplied", "contract_pending")},
            **{key: body[key] for key in ("database", "project", "alias", "vendor", "phase", "tier", "lock_hold_ms")},
        }
        return cls(**own, extra={key: value for key, value in body.items() if key not in own})


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a run did.

    Args:
        command: the command that was run.
        deploy: the deploy's name; None when the plan could not be read that far.
        run_id: the run.
        outcome: how it ended; the exit code follows from it.
        started_at: when it began, in UTC.
        duration_ms: how long it took.
        databases: one each, in the plan's order.
        error: the first cause.
        errors: every further one: what failed later, and each mistake of a plan or finding of the preflight.
        settle_with: where an operator is needed, the command to run, or those to choose from; their options alone until
            the command line has written them out.
        runbook: the page of this repository that tells what to do, such as `docs/runbooks/exit-4-unseen.md`.
        takes_back: of a rollback, the run that it takes back.
        workers: the machines of a fleet: of `status` those that are known, of a run those that were at work, each with
            how many databases it has had last.
        since: the later runs that have finalised it or taken it back, each as its command and run id; known of a run
            that a journal is asked for, and nothing is left to be settled of such a one.
    """

    command: str
    deploy: str | None
    run_id: str
    outcome: RunOutcome
    started_at: datetime
    duration_ms: float
    databases: tuple[DatabaseReport, ...] = ()
    error: RunError | None = None
    errors: tuple[RunError | Mistake, ...] = ()
    settle_with: tuple[str, ...] = ()
    runbook: str | None = None
    takes_back: str | None = None
    since: tuple[tuple[str, str], ...] = ()
    workers: tuple[Mapping[str, Any], ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code that the outcome means; `recover` has done its part whichever way it settled a run."""
        is_interrupted = self.error is not None and self.error.type == Interrupted.code
        is_back = self.outcome in {RunOutcome.HALTED, RunOutcome.ROLLED_BACK}
        is_settled = self.command == "recover" and is_back and not is_interrupted
        return 0 if is_settled else self.outcome.exit_code

    def to_dict(self) -> dict[str, Any]:
        """Return the machine report; `masked` it first."""
        return {
            "version": _VERSION,
            "command": self.command,
            "deploy": self.deploy,
            "run_id": self.run_id,
            "outcome": str(self.outcome),
            "exit_code": self.exit_code,
            "started_at": _timestamp(self.started_at),
            "duration_ms": self.duration_ms,
            "databases": [database.to_dict() for database in self.databases],
            "error": self.error.to_dict() if self.error else None,
            "errors": [_error_to_dict(error) for error in self.errors],
            **({"settle_with": list(self.settle_with)} if self.settle_with else {}),
            **({"runbook": self.runbook} if self.runbook else {}),
            **({"takes_back": self.takes_back} if self.takes_back else {}),
            **({"workers": [dict(each) for each in self.workers]} if self.workers else {}),
            **({"since": [{"command": each, "run_id": by} for each, by in self.since]} if self.since else {}),
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` made."""
        return cls(
            **{key: body[key] for key in ("command", "deploy", "run_id", "duration_ms")},
            outcome=RunOutcome(body["outcome"]),
            started_at=datetime.fromisoformat(body["started_at"]),
            databases=tuple(DatabaseReport.from_dict(database) for database in body["databases"]),
            error=RunError.from_dict(body["error"]) if body["error"] else None,
            errors=tuple(
                Mistake(**error) if _is_mistake(error) else RunError.from_dict(error) for error in body["errors"]
            ),
            settle_with=tuple(body.get("settle_with", ())),
            runbook=body.get("runbook"),
            takes_back=body.get("takes_back"),
            since=tuple((each["command"], each["run_id"]) for each in body.get("since", ())),
            workers=tuple(body.get("workers", ())),
        )

    def masked(self, masker: Masker) -> Self:
        """Return the same report without a secret, fit to be printed and kept."""
        return self.from_dict(masker.mask(self.to_dict()))


def runs_to_dict(runs: Iterable[RunSummary]) -> dict[str, Any]:
    """Return the machine report of `runs`: each run's report without its databases.

    A run that has not ended has null for `outcome`, `exit_code` and `duration_ms`.
    """
    return {"version": _VERSION, "command": "runs", "runs": [_run_to_dict(run) for run in runs]}


def _run_to_dict(run: RunSummary) -> dict[str, Any]:
    took = run.finished_at and run.finished_at - run.started_at
    return {
        "version": _VERSION,
        "command": run.command,
        "deploy": run.deploy,
        "run_id": run.run_id,
        "outcome": run.outcome,
        "exit_code": run.exit_code,
        "started_at": _timestamp(run.started_at),
        "duration_ms": took and took.total_seconds() * 1000,
        "error": run.error,
    }


def _is_mistake(body: Mapping[str, Any]) -> bool:
    # An error may have a place too, in a migration; it has a type in any case.
    return "type" not in body


def _error_to_dict(error: RunError | Mistake) -> dict[str, Any]:
    if isinstance(error, Mistake):
        return {"place": error.place, "message": error.message, "hint": error.hint}
    return error.to_dict()


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
