"""Durations as plans write them: "250ms", "2s", "15min", "24h", "7d"; in here, whole milliseconds."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from smooth_orchestrator.errors import BadValue
from smooth_orchestrator.suggestions import quoted

__all__ = ["Duration", "Pause", "ServerDuration", "parse_duration"]

_UNITS_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
# Twelve digits are more than any bound below, and keep a number of a million digits from being converted.
_SYNTAX = re.compile(r"(0|[1-9][0-9]{0,11})(ms|s|min|h|d)")
_HINT = 'write a whole number and one of ms, s, min, h, d: "250ms", "2s", "15min", "24h"'


def parse_duration(text: str) -> int:
    """Return the milliseconds that a duration means.

    Raises:
        BadValue: it is no duration.
    """
    match = _SYNTAX.fullmatch(text)
    if match is None:
        raise BadValue(f"{quoted(text)} is not a duration", _HINT)
    return int(match[1]) * _UNITS_MS[match[2]]


@dataclass(frozen=True, slots=True)
class _Between:
    """Makes pydantic read an int field of milliseconds from a duration, within bounds that are durations too."""

    shortest: str
    longest: str

    @property
    def rule(self) -> str:
        """What may be written, in words."""
        return f'a duration from "{self.shortest}" to "{self.longest}"'

    def read(self, value: Any) -> int:  # noqa: ANN401 - whatever a TOML value may be
        if not isinstance(value, str):
            raise BadValue("must be a duration in quotation marks", _HINT)
        duration_ms = parse_duration(value)
        if duration_ms < parse_duration(self.shortest):
            raise BadValue(f"{quoted(value)} is too short", f"at least {quoted(self.shortest)}")
        if duration_ms > parse_duration(self.longest):
            raise BadValue(f"{quoted(value)} is too long", f"at most {quoted(self.longest)}")
        return duration_ms

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:  # noqa: ANN401 - pydantic's signature
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        del schema, handler
        number = "(0|[1-9][0-9]{0,11})" if parse_duration(self.shortest) == 0 else "[1-9][0-9]{0,11}"
        return {"type": "string", "pattern": f"^{number}(ms|s|min|h|d)$"}


Duration = Annotated[int, _Between("1ms", "3650d")]
"""A length of time that must not be nothing."""

Pause = Annotated[int, _Between("0s", "3650d")]
"""A length of time that may be nothing."""

ServerDuration = Annotated[int, _Between("1ms", "24d")]
"""One that a server is told: PostgreSQL keeps them in 31 bits of milliseconds, and takes 0 for "no limit"."""
