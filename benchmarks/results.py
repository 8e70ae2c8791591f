"""Measurements as a table for a person and as a document for a program."""

import math
import os
import platform
import re
from collections.abc import Sequence
from statistics import linear_regression, median
from typing import Any, Final

import django
from rich.table import Table

from benchmarks.measuring import Measurement

__all__ = ["document", "growth", "table"]

_COUNTED: Final = re.compile(r"deploy/(\d+)-databases/([a-z-]+)")


def table(measurements: Sequence[Measurement]) -> Table:
    """Return a row for each measurement: medians, and how far the ratios of the single pairs lie apart."""
    result = Table(caption="ours / peer: below 1 the product is the faster one", caption_justify="left")
    for heading in ("benchmark", "ours", "peer", "ratio", "spread", "memory"):
        result.add_column(heading, justify="left" if heading == "benchmark" else "right", no_wrap=True)
    for each in measurements:
        result.add_row(
            each.name,
            f"{median(each.ours_s):#.3g} s",
            f"{median(each.peer_s):#.3g} s",
            f"{each.ratio:.2f}",
            f"{min(each.ratios):.2f}-{max(each.ratios):.2f}",
            f"{each.memory_mb:.0f} MiB" if each.memory_mb else "",
        )
    return result


def document(measurements: Sequence[Measurement], *, application: str, started_at: str) -> dict[str, Any]:
    """Return everything that was measured, with what a reader must know of the machine.

    Args:
        measurements: in the order of their runs.
        application: whose migrations they were.
        started_at: RFC 3339.
    """
    return {
        "version": 1,
        "started_at": started_at,
        "application": application,
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "django": django.get_version(),
        },
        "benchmarks": [
            {
                "name": each.name,
                "ours_s": list(each.ours_s),
                "peer_s": list(each.peer_s),
                "ratio": each.ratio,
                "ratio_lowest": min(each.ratios),
                "ratio_highest": max(each.ratios),
                "memory_mb": each.memory_mb,
            }
            for each in measurements
        ],
        "growth": growth(measurements),
    }


def growth(measurements: Sequence[Measurement]) -> dict[str, float]:
    """Return with which power of the number of databases a deploy's time grows, by the state that it begins in.

    The slope of the line through the medians' logarithms (least squares): 1 is in proportion, 0 not at all. Of a state
    that was measured with one number of databases nothing is known.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    for each in measurements:
        if (match := _COUNTED.fullmatch(each.name)) is not None:
            points.setdefault(match[2], []).append((math.log(int(match[1])), math.log(median(each.ours_s))))
    return {
        state: linear_regression(*zip(*found, strict=True)).slope
        for state, found in points.items()
        if len({count for count, _time in found}) > 1
    }
