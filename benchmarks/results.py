"""Measurements as a table for a person and as a document for a program."""

import os
import platform
from collections.abc import Sequence
from statistics import median
from typing import Any

import django
from rich.table import Table

from benchmarks.measuring import Measurement

__all__ = ["document", "table"]


def table(measurements: Sequence[Measurement]) -> Table:
    """Return a row for each measurement: medians, and how far the ratios of the single pairs lie apart."""
    result = Table(caption="ours / peer: below 1 the product is the faster one", caption_justify="left")
    for heading in ("benchmark", "ours", "peer", "ratio", "spread"):
        result.add_column(heading, justify="left" if heading == "benchmark" else "right", no_wrap=True)
    for each in measurements:
        result.add_row(
            each.name,
            f"{median(each.ours_s):#.3g} s",
            f"{median(each.peer_s):#.3g} s",
            f"{each.ratio:.2f}",
            f"{min(each.ratios):.2f}-{max(each.ratios):.2f}",
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
            }
            for each in measurements
        ],
    }
