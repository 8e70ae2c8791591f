"""Where on the page's time axis the work of each database stands. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Self

from smooth_orchestrator.render import duration_text
from smooth_orchestrator.timeline import Mark, Span, SpanKind, Timeline

__all__ = ["LEGEND", "Axis", "Bar", "Lane"]

_MOST_TICKS: Final = 6
_SECOND_MS: Final = 1000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS
_STEPS_MS: Final = (
    *(digit * 10**power for power in range(3) for digit in (1, 2, 5)),
    *(number * _SECOND_MS for number in (1, 2, 5, 10, 15, 30)),
    *(number * _MINUTE_MS for number in (1, 2, 5, 10, 15, 30)),
    *(number * _HOUR_MS for number in (1, 2, 3, 6, 12, 24)),
)

# A thinner bar could not be seen.
_LEAST_PERCENT: Final = 0.25

# With more bars than this, what follows one another in a lane is drawn as one: the page must stay small.
_MOST_BARS: Final = 6_000

_WORDS: Final[Mapping[SpanKind, str]] = {
    SpanKind.WORK: "at work",
    SpanKind.HELD: "held for the decision",
    SpanKind.APPLIED: "applied",
    SpanKind.FAILED: "failed",
    SpanKind.UNAPPLIED: "taken back",
    SpanKind.WAIT: "waited for a lock of",
    SpanKind.COMMITTED: "committed",
    SpanKind.ROLLED_BACK: "rolled back",
}
_MIGRATIONS: Final = frozenset({SpanKind.APPLIED, SpanKind.FAILED, SpanKind.UNAPPLIED})
_MERGED: Final = frozenset({SpanKind.APPLIED, SpanKind.UNAPPLIED})

# Kinds differ in place and height, not by their colours alone.
_PLACES: Final[Mapping[SpanKind, tuple[int, int]]] = {
    SpanKind.WORK: (7, 2),
    SpanKind.HELD: (5, 6),
    SpanKind.APPLIED: (2, 12),
    SpanKind.FAILED: (0, 16),
    SpanKind.UNAPPLIED: (4, 8),
    SpanKind.WAIT: (12, 4),
    SpanKind.COMMITTED: (1, 14),
    SpanKind.ROLLED_BACK: (1, 14),
}

# What is drawn later covers what was drawn before.
_ORDER: Final = (*SpanKind,)


@dataclass(frozen=True, slots=True)
class Bar:
    """A span as it is drawn.

    Args:
        kind: of the span.
        x: where it begins, in per cent of the axis.
        width: likewise.
        told: in words.
    """

    kind: SpanKind
    x: str
    width: str
    told: str

    @property
    def y(self) -> int:
        """How far below the lane's upper edge it begins, in pixels; a lane is 16 high."""
        return _PLACES[self.kind][0]

    @property
    def height(self) -> int:
        """How high it is, in pixels."""
        return _PLACES[self.kind][1]


@dataclass(frozen=True, slots=True)
class Lane:
    """One database's line.

    Args:
        bars: what is drawn in it.
        told: the same in words, for who does not see it.
        worked_ms: how long it was at work before the barrier.
        start_ms: when the first one began.
    """

    bars: Sequence[Bar]
    told: str
    worked_ms: float
    start_ms: float


LEGEND: Final = (
    Bar(SpanKind.WORK, "0", "18", "at work"),
    Bar(SpanKind.APPLIED, "0", "18", "migration"),
    Bar(SpanKind.FAILED, "0", "18", "failed"),
    Bar(SpanKind.UNAPPLIED, "0", "18", "taken back"),
    Bar(SpanKind.WAIT, "0", "18", "waited for a lock"),
    Bar(SpanKind.HELD, "0", "18", "held: open or prepared"),
    Bar(SpanKind.COMMITTED, "5", "6", "commit"),
    Bar(SpanKind.ROLLED_BACK, "5", "6", "rolled back"),
)
"""What the bars mean."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The stretch of time that the page shows.

    Args:
        start_ms: where it begins, since the run began.
        length_ms: how long it is.
        marks: the decisions within it.
        window: from the last database's arrival at the barrier to the last commit; None where there was none.
        merges: whether what follows one another in a lane is drawn as one.
    """

    start_ms: float
    length_ms: float
    marks: Sequence[Mark]
    window: tuple[float, float] | None
    merges: bool

    @classmethod
    def of(cls, timeline: Timeline) -> Self | None:
        """Return the axis on which all that was written down has room; None where nothing was."""
        spans = [span for each in timeline.spans.values() for span in each]
        if not spans:
            return None
        start_ms = min(*(span.start_ms for span in spans), *(mark.at_ms for mark in timeline.marks), spans[0].start_ms)
        end_ms = max(*(span.end_ms for span in spans), *(mark.at_ms for mark in timeline.marks), spans[0].end_ms)
        # A margin, lest the last commit stand on the edge.
        length_ms = max(end_ms - start_ms, 1.0) * 1.02
        return cls(start_ms, length_ms, timeline.marks, _window(spans), len(spans) > _MOST_BARS)

    def at(self, moment_ms: float) -> str:
        """Return where a moment stands, in per cent."""
        return _percent((moment_ms - self.start_ms) / self.length_ms * 100)

    def share(self, length_ms: float) -> str:
        """Return how much of the axis a length of time takes, in per cent; never too little to be seen."""
        return _percent(max(length_ms / self.length_ms * 100, _LEAST_PERCENT))

    def ticks(self) -> Iterator[tuple[str, str]]:
        """Yield where the axis has a tick, in per cent, and what it says: the time since the run began."""
        step_ms = next((step for step in _STEPS_MS if self.length_ms / step <= _MOST_TICKS), self.length_ms)
        tick_ms = -(-self.start_ms // step_ms) * step_ms
        # The last of the width is the label's.
        while tick_ms < self.start_ms + self.length_ms * 0.94:
            yield self.at(tick_ms), _tick_text(tick_ms, step_ms)
            tick_ms += step_ms

    def rules(self) -> str:
        """Return the style sheet that draws the ticks, the decisions and the window behind every lane.

        As elements of each lane they would be most of what a browser has to lay out for a thousand databases.
        """
        layers = [_stripe(self.at(mark.at_ms), "1.5px", "--ink") for mark in self.marks]
        layers += [_stripe(x, "1px", "--line") for x, _text in self.ticks()]
        if self.window is not None:
            start, end = (self.at(moment_ms) for moment_ms in self.window)
            layers.append(f"linear-gradient(90deg, #0000 {start}, var(--window) {start} {end}, #0000 {end})")
        return f"tbody .time svg {{ background: {', '.join(layers)}; }}" if layers else ""

    def lane(self, spans: Sequence[Span]) -> Lane:
        """Return how a database's spans are drawn."""
        start_ms = min(span.start_ms for span in spans)
        drawn = [*_merged(spans)] if self.merges else [(span, _told(span)) for span in spans]
        drawn.sort(key=lambda each: _ORDER.index(each[0].kind))
        bars = [Bar(span.kind, self.at(span.start_ms), self.share(span.took_ms), told) for span, told in drawn]
        worked_ms = sum(span.took_ms for span in spans if span.kind is SpanKind.WORK)
        return Lane(bars, _summary(spans), worked_ms, start_ms)


def _window(spans: Sequence[Span]) -> tuple[float, float] | None:
    arrivals = [span.start_ms for span in spans if span.kind is SpanKind.HELD]
    commits = [span.end_ms for span in spans if span.kind is SpanKind.COMMITTED]
    return (max(arrivals), max(commits)) if arrivals and commits and max(commits) > max(arrivals) else None


def _stripe(x: str, width: str, colour: str) -> str:
    return f"linear-gradient(var({colour}), var({colour})) {x} 0 / {width} 100% no-repeat"


def _merged(spans: Iterable[Span]) -> Iterator[tuple[Span, str]]:
    ordered = sorted(spans, key=lambda span: span.kind in _MIGRATIONS)
    for kind, group in groupby(ordered, key=lambda span: span.kind):
        same = [*group]
        if kind not in _MERGED or len(same) == 1:
            yield from ((span, _told(span)) for span in same)
            continue
        start_ms, end_ms = min(span.start_ms for span in same), max(span.end_ms for span in same)
        one = Span(kind, start_ms, end_ms - start_ms)
        yield one, f"{len(same)} migrations {_WORDS[kind]}: {_when(one)}"


def _told(span: Span) -> str:
    words = f"{span.label} {_WORDS[span.kind]}" if span.kind in _MIGRATIONS else f"{_WORDS[span.kind]} {span.label}"
    return f"{words.strip()}: {_when(span)}"


def _when(span: Span) -> str:
    if not span.took_ms:
        return f"at {duration_text(span.start_ms)}"
    return f"{duration_text(span.took_ms)}, from {duration_text(span.start_ms)} on"


def _summary(spans: Sequence[Span]) -> str:
    """Return a lane in one sentence."""
    parts = []
    for kind in _ORDER:
        same = [span for span in spans if span.kind is kind]
        if not same:
            continue
        words = _WORDS[kind]
        if kind is SpanKind.FAILED:
            parts.append("; ".join(_told(span) for span in same))
        elif kind in _MIGRATIONS:
            took_ms = sum(span.took_ms for span in same)
            parts.append(f"{len(same)} migration{'s'[: len(same) - 1]} {words} in {duration_text(took_ms)}")
        elif kind is SpanKind.WAIT:
            parts.append(f"waited for locks for {duration_text(sum(span.took_ms for span in same))}")
        else:
            parts.append(f"{words} {_when(same[-1])}")
    return "; ".join(parts)


def _percent(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def _tick_text(tick_ms: float, step_ms: float) -> str:
    if step_ms >= _HOUR_MS:
        return f"{tick_ms / _HOUR_MS:g} h"
    if step_ms >= _MINUTE_MS:
        return f"{tick_ms / _MINUTE_MS:g} min"
    if tick_ms >= _SECOND_MS:
        return f"{tick_ms / _SECOND_MS:g} s"
    return f"{tick_ms:g} ms"
