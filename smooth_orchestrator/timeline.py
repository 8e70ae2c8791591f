"""When what happened to each database of a run, in milliseconds since the run began; and how a journal keeps it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from smooth_orchestrator.journal.base import Record, RecordKind

__all__ = ["Mark", "Span", "SpanKind", "Timeline", "WorkerVersions", "timeline_of"]


class SpanKind(StrEnum):
    """What a database, or its worker, was at meanwhile.

    `WORK`: from its turn to the barrier, all of it. `HELD`: its transaction waited there, open or prepared. `WAIT`: a
    statement waited for a lock. The migrations are `APPLIED`, `FAILED` or `UNAPPLIED`, and the ends `COMMITTED` and
    `ROLLED_BACK`.
    """

    WORK = "work"
    HELD = "held"
    APPLIED = "applied"
    FAILED = "failed"
    UNAPPLIED = "unapplied"
    WAIT = "wait"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Span:
    """One thing that took its time.

    Args:
        kind: what.
        start_ms: when it began.
        took_ms: how long it took; 0 where only its end is known.
        label: the migration, as `app.name`, or who held the lock.
    """

    kind: SpanKind
    start_ms: float
    took_ms: float
    label: str = ""

    @property
    def end_ms(self) -> float:
        """When it ended."""
        return self.start_ms + self.took_ms


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of the whole run.

    Args:
        at_ms: when.
        what: `commit` or `abort`, the decisions.
        scope: `deploy`, or the phase that it was about.
    """

    at_ms: float
    what: str
    scope: str


@dataclass(frozen=True, slots=True)
class WorkerVersions:
    """What a project's workers ran on."""

    project: str
    python: str
    django: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """All of a run.

    Args:
        spans: by database, in the order in which they ended.
        marks: the decisions, in order.
        workers: one for each project.
        version: of the program that ran it; None where nobody has written that down.
        is_whole: whether migrations and waits are all there.
    """

    spans: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    workers: tuple[WorkerVersions, ...] = ()
    version: str | None = None
    is_whole: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Return what the journal keeps: for each database its spans by kind, with migrations told by their number."""
        numbers: dict[str, int] = {}
        databases = []
        for name, spans in self.spans.items():
            lane: dict[str, Any] = {"database": name}
            for span in spans:
                label: tuple[int | str, ...] = ()
                if span.label:
                    is_text = span.kind is SpanKind.WAIT
                    label = (span.label,) if is_text else (numbers.setdefault(span.label, len(numbers)),)
                lane.setdefault(str(span.kind), []).append([round(span.start_ms, 1), round(span.took_ms, 1), *label])
            databases.append(lane)
        return {
            "version": self.version,
            # The key under which names of migrations are never taken for secrets.
            "migration": [*numbers],
            "databases": databases,
            "decisions": [
                {"at_ms": round(mark.at_ms, 1), "decision": mark.what, "scope": mark.scope} for mark in self.marks
            ],
            "workers": [
                {"project": each.project, "python": each.python, "django": each.django, "version": each.version}
                for each in self.workers
            ],
            "whole": self.is_whole,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` made; a kind of span that it does not know is left out."""
        names = body["migration"]
        spans = {
            lane["database"]: sorted(
                (
                    Span(kind, start_ms, took_ms, *(names[each] if isinstance(each, int) else each for each in label))
                    for kind in SpanKind
                    for start_ms, took_ms, *label in lane.get(kind, ())
                ),
                key=lambda span: span.end_ms,
            )
            for lane in body["databases"]
        }
        return cls(
            spans=spans,
            marks=tuple(Mark(each["at_ms"], each["decision"], each["scope"]) for each in body["decisions"]),
            workers=tuple(WorkerVersions(**each) for each in body["workers"]),
            version=body["version"],
            is_whole=body["whole"],
        )


def timeline_of(records: Iterable[Record]) -> Timeline:
    """Return what the records of a run tell by their own times, where nobody has written down more. Pure.

    They are written when a database begins, when it has reached the barrier and when it has ended: no migration is told
    by itself.

    Args:
        records: oldest first; of a run that was begun again, its last beginning counts.
    """
    zero = None
    begun: dict[str, tuple[SpanKind, float]] = {}
    spans: dict[str, list[Span]] = {}
    marks: list[Mark] = []
    for record in records:
        if zero is None or record.kind is RecordKind.RUN_STARTED:
            zero, begun, spans, marks = record.at, {}, {}, []
        at_ms = (record.at - zero).total_seconds() * 1000
        name = record.database or ""
        match record.kind:
            case RecordKind.INTENT:
                begun[name] = (SpanKind.WORK, at_ms)
            case RecordKind.DECISION:
                marks.append(Mark(at_ms, record.data["decision"], record.data["scope"]))
            case RecordKind.HELD | RecordKind.COMMITTED | RecordKind.ROLLED_BACK:
                if name in begun:
                    kind, start_ms = begun[name]
                    spans.setdefault(name, []).append(Span(kind, start_ms, at_ms - start_ms))
                begun[name] = (SpanKind.HELD, at_ms)
                if record.kind is not RecordKind.HELD:
                    spans.setdefault(name, []).append(Span(SpanKind(record.kind), at_ms, 0.0))
                    del begun[name]
    return Timeline(spans=spans, marks=tuple(marks), is_whole=False)
