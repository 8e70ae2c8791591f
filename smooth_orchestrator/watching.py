"""Hear a run's log for when what happened, so that its journal can keep a timeline. It only watches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from smooth_orchestrator.events import EventName
from smooth_orchestrator.timeline import Mark, Span, SpanKind, Timeline, WorkerVersions

__all__ = ["Timekeeper"]

_MOST_SPANS: Final = 10_000
"""How many migrations and waits are kept: half a megabyte or less. The beginnings and ends of databases always are."""

# Of those who hold a lock, as many are named.
_MOST_NAMED: Final = 3

_MIGRATIONS: Final = {
    EventName.MIGRATION_APPLIED: SpanKind.APPLIED,
    EventName.MIGRATION_FAILED: SpanKind.FAILED,
    EventName.MIGRATION_UNAPPLIED: SpanKind.UNAPPLIED,
    EventName.MIGRATION_UNAPPLY_FAILED: SpanKind.FAILED,
}
_BEGINNINGS: Final = {
    EventName.LEASE_ACQUIRED,
    EventName.MIGRATION_STARTED,
    EventName.LOCK_WAITING,
    EventName.LOCK_RETRY,
    *_MIGRATIONS,
}
_ENDS: Final = {
    EventName.DATABASE_COMMITTED: SpanKind.COMMITTED,
    EventName.DATABASE_ROLLED_BACK: SpanKind.ROLLED_BACK,
    EventName.DATABASE_REHEARSED: SpanKind.ROLLED_BACK,
}


@dataclass(slots=True)
class _Lane:
    """What has become of one database so far; moments in milliseconds since 1970.

    Args:
        spans: what has ended.
        working: since when it has been at work.
        held: since when it has been at the barrier.
        waiting: since when it has waited for a lock, and for whom.
        last: when something was last heard of it.
    """

    spans: list[Span] = field(default_factory=list)
    working: float | None = None
    held: float | None = None
    waiting: tuple[float, str] | None = None
    last: float = 0.0


class Timekeeper:
    """A listener of a command's log, which knows at the end when what happened in its run."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._marks: list[Mark] = []
        self._workers: dict[str, WorkerVersions] = {}
        self._version: str | None = None
        self._room = _MOST_SPANS

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take note of one event."""
        name = event["event"]
        if name == EventName.DEPLOY_STARTED:
            # What came before was the settling of earlier runs.
            self._lanes, self._marks, self._version = {}, [], event.get("version")
        elif name == EventName.DEPLOY_DECIDED:
            self._marks.append(Mark(_moment_ms(event), event["decision"], event["scope"]))
        elif name == EventName.WORKER_STARTED:
            versions = (event.get(key, "") for key in ("python", "django", "version"))
            self._workers[event["project"]] = WorkerVersions(event["project"], *versions)
        elif "database" in event:
            lane = self._lanes.get(event["database"])
            if lane is None:
                lane = self._lanes[event["database"]] = _Lane()
            self._hear(lane, name, event)

    def _hear(self, lane: _Lane, name: str, event: Mapping[str, Any]) -> None:
        at_ms = lane.last = _moment_ms(event)
        if name in _BEGINNINGS and lane.working is None and lane.held is None:
            lane.working = at_ms - event.get("duration_ms", 0.0)
        if name == EventName.LOCK_WAITING:
            # Told again where others have come into the way meanwhile.
            since_ms = lane.waiting[0] if lane.waiting else at_ms
            lane.waiting = (since_ms, _named(event["blockers"]))
        elif name in _MIGRATIONS:
            self._end_wait(lane, at_ms)
            took_ms = event.get("duration_ms", 0.0)
            label = f"{event['app']}.{event['migration']}"
            self._keep(lane, Span(_MIGRATIONS[EventName(name)], at_ms - took_ms, took_ms, label))
        elif name in {EventName.LOCK_RETRY, EventName.DATABASE_BEGUN_ANEW}:
            self._end_wait(lane, at_ms)
        elif name == EventName.DATABASE_PREPARED:
            _end_work(lane, at_ms)
            lane.held = at_ms
        elif name in _ENDS:
            self._end_wait(lane, at_ms)
            took_ms = event.get("duration_ms", 0.0) if name == EventName.DATABASE_COMMITTED else 0.0
            _end_work(lane, at_ms)
            lane.spans.append(Span(_ENDS[EventName(name)], at_ms - took_ms, took_ms))

    def _end_wait(self, lane: _Lane, at_ms: float) -> None:
        if lane.waiting is not None:
            since_ms, blockers = lane.waiting
            self._keep(lane, Span(SpanKind.WAIT, since_ms, at_ms - since_ms, blockers))
            lane.waiting = None

    def _keep(self, lane: _Lane, span: Span) -> None:
        self._room -= 1
        if self._room >= 0:
            lane.spans.append(span)

    def timeline(self, started_at: datetime) -> Timeline | None:
        """Return what was heard of a run, or None where nothing was.

        Args:
            started_at: when it began.
        """
        if not self._lanes and not self._marks:
            return None
        # Other threads may log meanwhile.
        lanes = [*self._lanes.items()]
        for _name, lane in lanes:
            # Of what is in doubt nobody has heard the end.
            self._end_wait(lane, lane.last)
            _end_work(lane, lane.last)
        zero_ms = started_at.timestamp() * 1000

        def since(span: Span) -> Span:
            return Span(span.kind, span.start_ms - zero_ms, span.took_ms, span.label)

        return Timeline(
            spans={name: [since(span) for span in lane.spans] for name, lane in lanes},
            marks=tuple(Mark(mark.at_ms - zero_ms, mark.what, mark.scope) for mark in self._marks),
            workers=tuple(self._workers.values()),
            version=self._version,
            is_whole=self._room >= 0,
        )


def _end_work(lane: _Lane, at_ms: float) -> None:
    for kind, since_ms in ((SpanKind.WORK, lane.working), (SpanKind.HELD, lane.held)):
        if since_ms is not None:
            lane.spans.append(Span(kind, since_ms, at_ms - since_ms))
    lane.working = lane.held = None


def _named(blockers: Sequence[Mapping[str, Any]]) -> str:
    """Return who is in the way, in words."""
    named = [f"{each['application_name'] or 'a session'} (pid {each['pid']})" for each in blockers]
    more = len(named) - _MOST_NAMED
    return ", ".join(named[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _moment_ms(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["timestamp"]).timestamp() * 1000
