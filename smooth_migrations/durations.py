"""Durations as they are written on the command line."""

import argparse
import re

__all__ = ["duration_s", "limit_s"]

_WRITTEN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|min|h)")
# Servers count milliseconds in 32 bits (PostgreSQL manual, lock_timeout), and take none of them for no limit.
_LEAST_S, _MOST_S = 0.001, 2_147_483.0
_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """Return a duration such as `250ms`, `2s`, `15min` or `24h` in seconds.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 250ms, 2s, 15min or 24h")
    return float(written["number"]) * _UNITS_S[written["unit"]]


def limit_s(text: str) -> float:
    """Return a duration that a server takes for the limit of a statement, in seconds.

    Raises:
        argparse.ArgumentTypeError: it is none, or is less than a millisecond, or more than servers can count.
    """
    limit = duration_s(text)
    if not _LEAST_S <= limit <= _MOST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no limit that a server takes; write 1ms to 596h")
    return limit
