"""What came of each crash point, as a page of the documentation.

`python -m tests.support.crash_page` prints the page; with the file that `pytest --junit-xml` wrote of
tests/acceptance/test_recovery.py, what came of each point in that run.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from tests.support.crash_points import BACK, FLEETS, FORWARD, RECOVERY, STRUCK, TAKEN_BACK, UNAPPLYING

__all__ = ["Crash", "crashes", "outcomes", "page"]

_PAGE: Final = """\
# Crash points

Where the tests kill a coordinator or a worker with SIGKILL, and want the next command to settle what was left: all
databases new, or all as they were before, by dumps over connections of their own; no prepared transaction, no lease and
no process stays; and the same deploy then succeeds. `smooth-orchestrate failpoints` lists the points. There are {total}
cases{held}; `python -m pytest -m "" tests/acceptance/test_recovery.py` runs them.

The fleets have three databases, one of them SQLite:

{fleets}

{sections}"""

_SECTIONS: Final[Mapping[str, tuple[str, tuple[Mapping[str, list[str]], ...]]]] = {
    "test_a_crash_on_the_way_is_settled": ("A deploy, on its way", (FORWARD,)),
    "test_a_crash_on_the_way_back_is_settled": ("A deploy whose gate refuses, on its way back", (BACK,)),
    "test_a_crash_on_the_way_back_from_what_failed_is_settled": ("A migration that fails, on its way back", (STRUCK,)),
    "test_a_crash_of_a_rollback_is_settled": ("A rollback", (TAKEN_BACK, UNAPPLYING)),
    "test_a_crash_of_the_recovery_is_settled_by_the_next": (
        "A recovery, after the deploy was killed",
        tuple({fleet: [f"{point}-{then}" for then in each]} for (fleet, point), each in RECOVERY.items()),
    ),
}

_HOLDS: Final = {True: "holds", False: "**does not hold**"}


@dataclass(frozen=True, slots=True)
class Crash:
    """One case.

    Args:
        test: the test's name.
        fleet: one of `FLEETS`.
        point: where it is killed; of a recovery, where the deploy is, a hyphen, and where the recovery is.
    """

    test: str
    fleet: str
    point: str

    @property
    def name(self) -> str:
        """As pytest calls it."""
        return f"{self.test}[{self.fleet}-{self.point}]"


def crashes() -> Iterator[Crash]:
    """Yield every case."""
    for test, (_, groups) in _SECTIONS.items():
        for group in groups:
            for fleet, points in group.items():
                yield from (Crash(test, fleet, point) for point in points)


def outcomes(results: Path) -> dict[str, bool]:
    """Return which tests passed, by name, as pytest has written it down in `--junit-xml`."""
    found = ET.parse(results).iter("testcase")  # noqa: S314 - our own test run wrote it
    return {
        case.get("name", ""): not [*case.iter("failure"), *case.iter("error"), *case.iter("skipped")] for case in found
    }


def page(results: Mapping[str, bool] | None = None) -> str:
    """Return the page, in Markdown.

    Args:
        results: which tests passed; without them it says only what is tested.
    """
    held = {crash: "tested" if results is None else _HOLDS[results.get(crash.name, False)] for crash in crashes()}
    count = "" if results is None else f", of which {[*held.values()].count(_HOLDS[True])} hold"
    sections = "\n\n".join(
        f"## {title}\n\n{_table([crash for crash in held if crash.test == test], held)}"
        for test, (title, _) in _SECTIONS.items()
    )
    fleets = "\n".join(f"- *{name}*: {words}" for name, words in FLEETS.items())
    return _PAGE.format(total=len(held), held=count, fleets=fleets, sections=sections + "\n")


def _table(found: list[Crash], held: Mapping[Crash, str]) -> str:
    fleets = list(dict.fromkeys(crash.fleet for crash in found))
    lines = ["| killed at | " + " | ".join(fleets) + " |", "|---|" + "---|" * len(fleets)]
    for point in dict.fromkeys(crash.point for crash in found):
        cells = ["" for _ in fleets]
        for crash in found:
            if crash.point == point:
                cells[fleets.index(crash.fleet)] = held[crash]
        lines.append(f"| {point.replace('-', ', then ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(page(outcomes(Path(sys.argv[1])) if sys.argv[1:] else None))
