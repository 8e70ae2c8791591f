"""Durations as they are written on the command line."""

import argparse
import re

__all__ = ["duration_s"]

_WRITTEN = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>ms|s|min|h)")
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
