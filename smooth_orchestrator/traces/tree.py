"""Which spans a run's events make, and below which others they stand. Knows nothing of OpenTelemetry.

```text
smooth-orchestrate deploy
├─ preflight
├─ phase canary
│  ├─ database primary
│  │  └─ migrate orders.0007_total
│  │     └─ lock wait
│  └─ gate
├─ prepare            from the last phase's end to the decision
├─ decide             the journal's write
└─ commit             or: roll back
   └─ COMMIT PREPARED primary
```

A last resource, whose commit is the decision, has its COMMIT below the command itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from smooth_orchestrator.events import Decision, EventName
from smooth_orchestrator.report import Report

__all__ = ["Spans", "Tree"]

_Span = TypeVar("_Span")

_PREFIX: Final = "smooth."
# What of an event says where its span belongs, under the names that it has there.
_SAID: Final = (
    "run_id",
    "deploy",
    "phase",
    "database",
    "project",
    "alias",
    "app",
    "migration",
    "direction",
    "tier",
    "worker",
)
# What a migration says while it waits for a lock.
_GOES_ON: Final = {EventName.OUTPUT_CAPTURED, EventName.LOG_MESSAGE}
# What its error is about is the database, and not what went on in it.
_FAILS_DATABASE: Final = {EventName.DATABASE_ROLLED_BACK, EventName.DATABASE_BEGUN_ANEW}
_COMMITS: Final = {"two_phase": "COMMIT PREPARED", "held_open": "COMMIT"}


class Spans(Protocol[_Span]):
    """Where spans are made."""

    def start(self, name: str, parent: _Span | None, at_ns: int, attributes: Mapping[str, Any], *, asks: bool) -> _Span:
        """Begin one; `asks` says that it waits for a database server."""

    def end(self, span: _Span, at_ns: int, attributes: Mapping[str, Any], error: Mapping[str, Any] | None) -> None:
        """End one; an error is as an event has it."""


@dataclass(slots=True)
class Tree(Generic[_Span]):
    """The spans of one run.

    Args:
        spans: where they are made.
        root: that of the command.
    """

    spans: Spans[_Span]
    root: _Span
    _vendors: Mapping[str, str] = field(default_factory=dict)
    _open: dict[tuple[str, ...], _Span] = field(default_factory=dict)
    _errors: dict[tuple[str, ...], Mapping[str, Any]] = field(default_factory=dict)
    _settling: _Span | None = None
    _last_ns: int = 0
    _phases_ended_ns: int | None = None

    def hear(self, event: Mapping[str, Any]) -> _Span:
        """Take note of one event; return the span to which its line belongs."""
        at_ns = self._last_ns = _nanoseconds(event["timestamp"])
        match event["event"]:
            case EventName.DEPLOY_STARTED:
                self._vendors = event.get("vendors", {})
                span = self._begin(("preflight",), "preflight", self.root, event)
            case EventName.PREFLIGHT_PASSED | EventName.PREFLIGHT_FAILED:
                span = self._finish(("preflight",), event)
            case EventName.PHASE_STARTED:
                self._settled()
                span = self._begin(("phase",), f"phase {event['phase']}", self.root, event)
            case EventName.PHASE_FINISHED:
                self._finish_all("gate", "lock", "migration", "database")
                self._phases_ended_ns = at_ns
                span = self._finish(("phase",), event)
            case EventName.GATE_STARTED:
                span = self._begin(("gate",), "gate", self._open.get(("phase",), self.root), event)
            case EventName.GATE_PASSED | EventName.GATE_FAILED:
                code = event.get("exit_code", 0)
                span = self._finish(("gate",), event, {} if code is None else {"process.exit.code": code})
            case EventName.DEPLOY_DECIDED:
                span = self._decide(event)
            case _ if "database" in event:
                span = self._of_database(event)
            case _:
                span = self._open.get(("phase",), self.root)
        return span

    def end(self, report: Report, at_ns: int) -> None:
        """End all that is open, and the command's own span, by its report."""
        self._last_ns = at_ns
        self._finish_all("preflight", "gate", "lock", "migration", "database", "phase")
        self._settled()
        attributes = {
            "run_id": report.run_id,
            "deploy": report.deploy,
            "command": report.command,
            "outcome": str(report.outcome),
            "databases": len(report.databases),
        }
        failed = report.error or next(iter(report.errors), None)
        error = {"type": getattr(failed, "type", str(report.outcome)), "message": getattr(failed, "message", "")}
        told = _named(attributes) | {"process.exit.code": report.exit_code}
        self.spans.end(self.root, at_ns, told, error if report.exit_code else None)

    def _of_database(self, event: Mapping[str, Any]) -> _Span:
        name = event["database"]
        migration, lock = ("migration", name), ("lock", name)
        if event["event"] not in _GOES_ON:
            # Whoever was waited for has let go, or the wait was given up.
            self._finish(lock, event)
        match event["event"]:
            case EventName.MIGRATION_STARTED:
                span = self._begin(migration, _migrating(event), self._database(event), event, asks=True)
            case EventName.MIGRATION_FAILED | EventName.MIGRATION_UNAPPLY_FAILED:
                self._errors["database", name] = event["error"]
                span = self._finish(migration, event, else_name=_migrating(event))
            case EventName.MIGRATION_APPLIED | EventName.MIGRATION_UNAPPLIED:
                span = self._finish(migration, event, else_name=_migrating(event))
            case EventName.LOCK_WAITING:
                parent = self._open.get(migration) or self._database(event)
                blockers = [f"{each['pid']} {each['application_name']}".rstrip() for each in event["blockers"]]
                span = self._begin(lock, "lock wait", parent, event, {"blockers": blockers}, asks=True)
            case EventName.LOCK_RETRY:
                # It is begun anew, with all of its transaction.
                self._finish(migration, event)
                span = self._database(event)
            case EventName.DATABASE_PREPARED | EventName.DATABASE_BEGUN_ANEW:
                # What a machine was at that was lost has failed; the rest is another one's.
                self._finish(migration, event)
                span = self._finish(("database", name), event)
            case EventName.DATABASE_COMMITTED | EventName.DATABASE_ROLLED_BACK:
                span = self._settle(event)
            case EventName.LEASE_ACQUIRED if ("phase",) in self._open:
                span = self._database(event)
            case _:
                around = self._settling or self._open.get(("phase",), self.root)
                span = self._open.get(migration) or self._open.get(("database", name), around)
        return span

    def _database(self, event: Mapping[str, Any]) -> _Span:
        """Return the span of the work on a database, which may begin with this event."""
        key = ("database", event["database"])
        if key in self._open:
            return self._open[key]
        parent = self._settling or self._open.get(("phase",), self.root)
        return self._begin(key, f"database {event['database']}", parent, event)

    def _decide(self, event: Mapping[str, Any]) -> _Span:
        at_ns = self._last_ns
        began_ns = _began(event, at_ns)
        self._finish_all("gate", "lock", "migration", "database")
        self._settled()
        if event["decision"] == Decision.COMMIT and self._phases_ended_ns is not None:
            prepare = self.spans.start("prepare", self.root, self._phases_ended_ns, _attributes(event), asks=True)
            self.spans.end(prepare, began_ns, {}, None)
        said = _attributes(event) | _named({"decision": event["decision"], "scope": event.get("scope")})
        decided = self.spans.start("decide", self.root, began_ns, said, asks=False)
        self.spans.end(decided, at_ns, {}, event.get("error"))
        name = "commit" if event["decision"] == Decision.COMMIT else "roll back"
        self._settling = self.spans.start(name, self.root, at_ns, said, asks=False)
        return decided

    def _settle(self, event: Mapping[str, Any]) -> _Span:
        name, at_ns = event["database"], self._last_ns
        self._finish(("migration", name), event)
        self._finish(("database", name), event)
        is_commit = event["event"] == EventName.DATABASE_COMMITTED
        operation = _COMMITS.get(event.get("tier", ""), "commit") if is_commit else "ROLLBACK"
        attributes = self._asking(event) | {"db.operation.name": operation}
        if "lock_hold_ms" in event:
            attributes[f"{_PREFIX}lock_hold_ms"] = event["lock_hold_ms"]
        span = self.spans.start(
            f"{operation} {name}", self._settling or self.root, _began(event, at_ns), attributes, asks=True
        )
        self.spans.end(span, at_ns, {}, event.get("error"))
        return span

    def _settled(self) -> None:
        """End what was decided last: by now all is done that it said."""
        if self._settling is not None:
            self._finish_all("lock", "migration", "database")
            self.spans.end(self._settling, self._last_ns, {}, None)
            self._settling = None

    def _begin(
        self,
        key: tuple[str, ...],
        name: str,
        parent: _Span,
        event: Mapping[str, Any],
        more: Mapping[str, Any] | None = None,
        *,
        asks: bool = False,
    ) -> _Span:
        at_ns = self._last_ns - int(event.get("waited_ms", 0) * 1_000_000)
        attributes = (self._asking(event) if asks else _attributes(event)) | _named(more or {})
        self._open[key] = self.spans.start(name, parent, at_ns, attributes, asks=asks)
        return self._open[key]

    def _finish(
        self,
        key: tuple[str, ...],
        event: Mapping[str, Any],
        more: Mapping[str, Any] | None = None,
        *,
        else_name: str | None = None,
    ) -> _Span:
        """End a span, if it is open; what was not begun is made whole where it has a name."""
        span = self._open.pop(key, None)
        if span is None:
            if else_name is None:
                return self.root
            span = self.spans.start(
                else_name, self._database(event), _began(event, self._last_ns), self._asking(event), asks=True
            )
        error = self._errors.pop(key, None) or (event.get("error") if _is_about(key, event) else None)
        self.spans.end(span, self._last_ns, more or {}, error)
        return span

    def _finish_all(self, *kinds: str) -> None:
        for kind in kinds:
            for key in [key for key in self._open if key[0] == kind]:
                self.spans.end(self._open.pop(key), self._last_ns, {}, self._errors.pop(key, None))

    def _asking(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the attributes of a span that waits for a server, by the conventions for databases."""
        vendor = self._vendors.get(event["database"])
        return _attributes(event) | ({"db.system.name": vendor} if vendor else {})


def _is_about(key: tuple[str, ...], event: Mapping[str, Any]) -> bool:
    """Return whether an event's error is that of a span which it ends, and not of what goes on in it."""
    return key[0] != "database" or event["event"] in _FAILS_DATABASE


def _migrating(event: Mapping[str, Any]) -> str:
    return f"migrate {event['app']}.{event['migration']}"


def _attributes(event: Mapping[str, Any]) -> dict[str, Any]:
    return _named({key: event.get(key) for key in _SAID})


def _named(said: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{_PREFIX}{key}": value for key, value in said.items() if value is not None}


def _nanoseconds(timestamp: str) -> int:
    moment = datetime.fromisoformat(timestamp)
    # A float holds no nanoseconds of this century.
    return int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1_000


def _began(event: Mapping[str, Any], at_ns: int) -> int:
    return at_ns - int(event.get("duration_ms", 0) * 1_000_000)
