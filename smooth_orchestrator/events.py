"""The names and keys of every log event: one table, from which the published JSON Schema is made.

`python -m smooth_orchestrator.events > docs/reference/events.schema.json` writes the schema.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from smooth_orchestrator.report import DatabaseOutcome, RunOutcome

__all__ = ["Decision", "Direction", "EventName", "blocker_text", "json_schema", "schema_text"]


class EventName(StrEnum):
    """Every `event` that a log line can carry."""

    DEPLOY_STARTED = "deploy.started"
    PREFLIGHT_PASSED = "preflight.passed"
    PREFLIGHT_FAILED = "preflight.failed"
    LEASE_ACQUIRED = "lease.acquired"
    LEASE_LOST = "lease.lost"
    PHASE_STARTED = "phase.started"
    PHASE_FINISHED = "phase.finished"
    MIGRATION_STARTED = "migration.started"
    MIGRATION_APPLIED = "migration.applied"
    MIGRATION_FAILED = "migration.failed"
    MIGRATION_UNAPPLIED = "migration.unapplied"
    MIGRATION_UNAPPLY_FAILED = "migration.unapply_failed"
    LOCK_WAITING = "lock.waiting"
    LOCK_WAITED = "lock.waited"
    LOCK_RETRY = "lock.retry"
    GATE_STARTED = "gate.started"
    GATE_PASSED = "gate.passed"
    GATE_FAILED = "gate.failed"
    BARRIER_REACHED = "barrier.reached"
    DATABASE_BEGUN_ANEW = "database.begun_anew"
    DATABASE_PREPARED = "database.prepared"
    DEPLOY_DECIDED = "deploy.decided"
    DATABASE_REHEARSED = "database.rehearsed"
    DATABASE_COMMITTED = "database.committed"
    DATABASE_ROLLED_BACK = "database.rolled_back"
    REHEARSAL_FINISHED = "rehearsal.finished"
    DEPLOY_COMMITTED = "deploy.committed"
    DEPLOY_ROLLED_BACK = "deploy.rolled_back"
    DEPLOY_NEEDS_OPERATOR = "deploy.needs_operator"
    CONTRACT_QUEUED = "contract.queued"
    CONTRACT_APPLIED = "contract.applied"
    FINALISE_STARTED = "finalise.started"
    FINALISE_NOT_DUE = "finalise.not_due"
    FINALISE_REFUSED = "finalise.refused"
    FINALISE_FINISHED = "finalise.finished"
    RECOVER_STARTED = "recover.started"
    RECOVER_SETTLED = "recover.settled"
    RUN_INTERRUPTED = "run.interrupted"
    TIER_CHANGED = "tier.changed"
    WORKER_STARTED = "worker.started"
    WORKER_FAILED = "worker.failed"
    OUTPUT_CAPTURED = "output.captured"
    LOG_MESSAGE = "log.message"


class Direction(StrEnum):
    """Which way a migration is moved."""

    FORWARDS = "forwards"
    BACKWARDS = "backwards"


class Decision(StrEnum):
    """What was decided for a deploy or a phase."""

    COMMIT = "commit"
    ABORT = "abort"


_TEXT: Final = {"type": "string"}
_NULLABLE: Final = {"type": ["string", "null"]}
_COUNT: Final = {"type": "integer", "minimum": 0}
_AMOUNT: Final = {"type": "number", "minimum": 0}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_ERROR: Final = {"$ref": "#/$defs/error"}
_TIMESTAMP: Final = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)$"}


def _object(required: Mapping[str, object], optional: Mapping[str, object]) -> dict[str, object]:
    properties = {**required, **optional}
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


# A key means the same wherever it stands.
_KEYS: Final[Mapping[str, Mapping[str, object]]] = {
    "timestamp": _TIMESTAMP,
    "level": {"enum": ["debug", "info", "warning", "error", "critical"]},
    "run_id": _NULLABLE,
    "deploy": _NULLABLE,
    "trace_id": _TEXT,
    "span_id": _TEXT,
    "phase": _TEXT,
    "database": _TEXT,
    "project": _TEXT,
    "alias": _TEXT,
    "app": _TEXT,
    "migration": {"type": "string", "pattern": "^[^.]+$"},
    "direction": {"enum": [*Direction]},
    "tier": {"enum": ["two_phase", "held_open", "compensated"]},
    "duration_ms": _AMOUNT,
    "outcome": {"enum": sorted({*RunOutcome, *DatabaseOutcome})},
    "attempt": {"type": "integer", "minimum": 1},
    "error": _ERROR,
    "argv": _TEXTS,
    "backend_pid": _COUNT,
    "blockers": {
        "type": "array",
        "items": _object({"pid": _COUNT, "application_name": _TEXT, "query_age_ms": _AMOUNT}, {}),
    },
    "command": _TEXT,
    "databases": _TEXTS,
    "decision": {"enum": [*Decision]},
    "delay_ms": _AMOUNT,
    "digest": _TEXT,
    "django": _TEXT,
    "due_at": _TIMESTAMP,
    "epoch": _COUNT,
    "exit_code": {"type": ["integer", "null"]},
    "findings": {
        "type": "array",
        "items": _object(
            {"code": _TEXT, "message": _TEXT}, {"database": _NULLABLE, "hint": _NULLABLE, "sqlstate": _NULLABLE}
        ),
    },
    "idle": _TEXTS,
    "kept": _COUNT,
    "line": _TEXT,
    "lock_hold_ms": _AMOUNT,
    "logger": _TEXT,
    "message": _TEXT,
    "operations": _TEXTS,
    "owner": _TEXT,
    "parallel": _COUNT,
    "pending": _COUNT,
    "phases": _TEXTS,
    "pid": _COUNT,
    "python": _TEXT,
    "runbook": _NULLABLE,
    "scope": _TEXT,
    "signal": _TEXT,
    "stream": {"enum": ["stdout", "stderr"]},
    "vendors": {"type": "object", "additionalProperties": _TEXT},
    "version": _TEXT,
    "waited_ms": _AMOUNT,
    "worker": _TEXT,
}

_ALWAYS: Final = ("timestamp", "level", "run_id", "deploy")

# Bound once per scope, so any line within it may carry them.
_CONTEXT: Final = ("phase", "database", "project", "alias", "tier", "attempt", "worker", "trace_id", "span_id")


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of one event, beside those of every line: names of `_KEYS`, separated by spaces."""

    required: str = ""
    optional: str = ""


_MIGRATION: Final = "database app migration direction"

_EVENTS: Final[Mapping[EventName, _Keys]] = {
    EventName.DEPLOY_STARTED: _Keys("command databases", "digest phases vendors version"),
    EventName.PREFLIGHT_PASSED: _Keys("duration_ms", "databases findings idle"),
    EventName.PREFLIGHT_FAILED: _Keys("findings", "duration_ms databases error"),
    EventName.LEASE_ACQUIRED: _Keys("epoch", "owner duration_ms"),
    EventName.LEASE_LOST: _Keys("", "epoch owner error"),
    EventName.PHASE_STARTED: _Keys("phase", "databases parallel"),
    EventName.PHASE_FINISHED: _Keys("phase outcome duration_ms", "databases error"),
    EventName.MIGRATION_STARTED: _Keys(_MIGRATION, "pending"),
    EventName.MIGRATION_APPLIED: _Keys(f"{_MIGRATION} duration_ms", "outcome"),
    EventName.MIGRATION_FAILED: _Keys(f"{_MIGRATION} error", "duration_ms"),
    EventName.MIGRATION_UNAPPLIED: _Keys(f"{_MIGRATION} duration_ms"),
    EventName.MIGRATION_UNAPPLY_FAILED: _Keys(f"{_MIGRATION} error", "duration_ms"),
    EventName.LOCK_WAITING: _Keys("database blockers", "app migration direction backend_pid waited_ms"),
    EventName.LOCK_WAITED: _Keys("database waited_ms", "backend_pid"),
    EventName.LOCK_RETRY: _Keys("database attempt delay_ms", "app migration direction error"),
    EventName.GATE_STARTED: _Keys("argv"),
    EventName.GATE_PASSED: _Keys("argv duration_ms"),
    EventName.GATE_FAILED: _Keys("argv duration_ms", "exit_code error"),
    EventName.BARRIER_REACHED: _Keys("databases", "duration_ms"),
    EventName.DATABASE_BEGUN_ANEW: _Keys("database error", "kept"),
    EventName.DATABASE_PREPARED: _Keys("database", "duration_ms lock_hold_ms"),
    EventName.DEPLOY_DECIDED: _Keys("decision", "duration_ms scope error"),
    EventName.DATABASE_REHEARSED: _Keys("database outcome", "duration_ms lock_hold_ms error message"),
    EventName.DATABASE_COMMITTED: _Keys("database", "duration_ms lock_hold_ms outcome"),
    EventName.DATABASE_ROLLED_BACK: _Keys("database", "duration_ms lock_hold_ms outcome error"),
    EventName.REHEARSAL_FINISHED: _Keys("outcome duration_ms databases", "error"),
    EventName.DEPLOY_COMMITTED: _Keys("outcome duration_ms", "databases"),
    EventName.DEPLOY_ROLLED_BACK: _Keys("outcome duration_ms", "databases error"),
    EventName.DEPLOY_NEEDS_OPERATOR: _Keys("outcome duration_ms databases", "error runbook"),
    EventName.CONTRACT_QUEUED: _Keys("database app migration operations"),
    EventName.CONTRACT_APPLIED: _Keys("database app migration operations", "duration_ms"),
    EventName.FINALISE_STARTED: _Keys("databases", "command digest"),
    EventName.FINALISE_NOT_DUE: _Keys("due_at", "databases"),
    EventName.FINALISE_REFUSED: _Keys("error", "findings databases"),
    EventName.FINALISE_FINISHED: _Keys("outcome duration_ms", "databases error"),
    EventName.RECOVER_STARTED: _Keys("", "databases epoch"),
    EventName.RECOVER_SETTLED: _Keys("outcome duration_ms", "decision databases error"),
    EventName.RUN_INTERRUPTED: _Keys("signal"),
    EventName.TIER_CHANGED: _Keys("database tier error"),
    EventName.WORKER_STARTED: _Keys("project pid", "duration_ms python django version"),
    EventName.WORKER_FAILED: _Keys("project error", "pid exit_code signal"),
    EventName.OUTPUT_CAPTURED: _Keys("stream line", "app migration direction pid"),
    EventName.LOG_MESSAGE: _Keys("logger message", "error app migration direction"),
}


def blocker_text(blocker: Mapping[str, Any]) -> str:
    """Return in words who one of the `blockers` of `lock.waiting` is."""
    name = blocker["application_name"]
    return f"pid {blocker['pid']}" + (f" ({name})" if name else "")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that every log line obeys; no line may carry a key its event does not have."""
    from smooth_orchestrator.event_words import EVENTS, KEYS  # noqa: PLC0415 - it imports this module

    error = {"type": _TEXT, "message": _TEXT, "sqlstate": _NULLABLE, "traceback": _NULLABLE}
    more = {
        "hint": _TEXT,
        "migration": _TEXT,
        "operation": _TEXT,
        "place": _TEXT,
        "causes": {"type": "array", "items": _ERROR},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of smooth-orchestrate's log",
        "type": "object",
        "properties": {
            name: {**key, "description": KEYS[name]} for name, key in {"event": {"enum": [*EventName]}, **_KEYS}.items()
        },
        "required": ["event", *_ALWAYS],
        # if/then rather than oneOf: a validator then names the stray key instead of "matches none of them".
        "allOf": [
            {
                "if": {"properties": {"event": {"const": name}}, "required": ["event"]},
                "then": {
                    "description": EVENTS[name],
                    "required": keys.required.split(),
                    "propertyNames": {"enum": _allowed(keys)},
                },
            }
            for name, keys in _EVENTS.items()
        ],
        "$defs": {"error": _object(error, more)},
    }


def schema_text() -> str:
    """Return the JSON Schema as the text that the repository keeps."""
    return json.dumps(json_schema(), indent=2) + "\n"


def _allowed(keys: _Keys) -> list[str]:
    # A dict keeps the order and drops what is named twice.
    return [*dict.fromkeys(("event", *_ALWAYS, *_CONTEXT, *keys.required.split(), *keys.optional.split()))]


if __name__ == "__main__":
    sys.stdout.write(schema_text())
