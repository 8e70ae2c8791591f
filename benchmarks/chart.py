"""Draw what a document of the benchmarks says of deploys: `python -m benchmarks.chart RESULTS.json CHART.svg`."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Final

__all__ = ["draw", "lines"]

_NAME: Final = re.compile(r"deploy/(\d+)-databases/([a-z-]+)")
_TITLES: Final = {
    "nothing-pending": "nothing pending",
    "five-pending": "five migrations pending",
    "from-zero": "from zero",
}

Line = list[tuple[int, float]]


def lines(document: dict[str, Any]) -> dict[str, dict[str, Line]]:
    """Return by state, and by side, the seconds that so many databases took: medians, by their number. Pure."""
    found: dict[str, dict[str, Line]] = {}
    for entry in document["benchmarks"]:
        if (match := _NAME.fullmatch(entry["name"])) is not None:
            sides = found.setdefault(match[2], {"ours": [], "peer": []})
            for side, line in sides.items():
                line.append((int(match[1]), median(entry[f"{side}_s"])))
                line.sort()
    return found


def draw(document: dict[str, Any], file: Path) -> None:
    """Draw a chart for each state, with both axes logarithmic, into a file of the format that its name ends in."""
    figures = import_module("matplotlib.figure")  # of a group of its own, which tests do without

    found = lines(document)
    figure = figures.Figure(figsize=(4.2 * len(found), 3.6), layout="constrained")
    for axes, (state, sides) in zip(figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True):
        for label, side in (("manage.py migrate", "peer"), ("smooth-orchestrate", "ours")):
            axes.plot(*zip(*sides[side], strict=True), marker="o", label=label)
        axes.set(xscale="log", yscale="log", title=_TITLES.get(state, state), xlabel="databases", ylabel="seconds")
        axes.grid(visible=True, which="major", alpha=0.4)
        axes.legend(fontsize="small")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
