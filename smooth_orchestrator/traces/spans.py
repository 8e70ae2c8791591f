"""Spans as they are kept until somebody takes them, with the ids that they have in the log."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

__all__ = ["Recorder", "Span", "Trace"]

# Of W3C's Trace Context, as OpenTelemetry's SDK reads it.
_PARENT: Final = re.compile(
    r"[ \t]*(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?[ \t]*"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of a run.

    Args:
        trace_id: its id.
        carrier: what the environment tells of the pipeline's, which it goes on with; empty where it is a new one.
    """

    trace_id: int
    carrier: Mapping[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Return the one that TRACEPARENT goes on with, or a new one."""
        found = _PARENT.fullmatch(environ.get("TRACEPARENT", ""))
        if found is None or (found[1] == "00" and found[3]):
            return cls(_random_id(16), {})
        names = ("traceparent", "tracestate")
        return cls(int(found[2], 16), {name: environ[name.upper()] for name in names if name.upper() in environ})


@dataclass(slots=True, eq=False)
class Span:
    """What was done for a while.

    Args:
        span_id: its id.
        parent: the span above, None for that of the command.
        name: of what was done.
        began_ns: when it began, since 1970.
        attributes: what it was about.
        asks: whether it waited for a database server.
        ended_ns: when it ended.
        error: as an event has it, where it failed.
    """

    span_id: int
    parent: "Span | None"
    name: str
    began_ns: int
    attributes: dict[str, Any]
    asks: bool
    ended_ns: int = 0
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Recorder:
    """Makes spans as `Tree` wants them.

    Args:
        ended: is given each that has ended.
    """

    ended: Callable[[Span], object]

    def start(self, name: str, parent: Span | None, at_ns: int, attributes: Mapping[str, Any], *, asks: bool) -> Span:
        """Begin one."""
        return Span(_random_id(8), parent, name, at_ns, {**attributes}, asks)

    def end(self, span: Span, at_ns: int, attributes: Mapping[str, Any], error: Mapping[str, Any] | None) -> None:
        """End one."""
        span.ended_ns, span.error = at_ns, error
        span.attributes |= attributes
        self.ended(span)


def _random_id(size: int) -> int:
    # Zero is no id.
    return int.from_bytes(os.urandom(size), "big") or 1
