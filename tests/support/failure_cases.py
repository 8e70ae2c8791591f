"""The cases that the undo of a call must survive, and which tests prove them, on which databases.

`python -m tests.support.failure_cases` prints the page of the documentation; with the file that `pytest --junit-xml`
wrote, what came of each case in that run.
"""

import re
import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.support.histories import Vendor

__all__ = ["CASES", "Proof", "awaited", "case", "page", "proof_id", "proofs"]

CASES: Final[Mapping[int, str]] = MappingProxyType(
    {
        1: "The database has no table of migrations, or an empty one.",
        2: "The first migration of a new app was applied before the failure.",
        3: "`--database=other`: undone on that alias alone, though `default` has no table of migrations.",
        4: "Rows of `django_migrations` lie in the future, or their ids are out of order.",
        5: "The clock steps back during the call.",
        6: "`--fake` and `--fake-initial`: what was only recorded is only unrecorded.",
        7: "Another process migrates the same database meanwhile.",
        8: "Two branches of one app: the state before is the graph's, not that of the id before.",
        9: "A call that goes backwards fails midway: what was unapplied is applied again.",
        10: "An operation among those applied has no way back.",
        11: "Rows hold what a reverse operation could not give back, such as values of a removed column.",
        12: "Files are gone: those that a squash replaced, or that of a migration that is recorded.",
        13: "One migration's name is the beginning of another's.",
        14: "KeyboardInterrupt, SystemExit, SIGINT or SIGTERM within a migration.",
        15: "Several steps that no transaction holds together, of which a later one fails.",
        16: "Tables that `--run-syncdb` made.",
        17: "Signals and content types: the undo sends no signal and leaves no stale content type.",
        18: "Every option of `migrate` means here what it means there.",
        19: "A receiver of `post_migrate` raises.",
        20: "Nothing had run: no rolling back is announced.",
        21: "What a squash records, and operations that `pre_migrate` put in, go with the call.",
        22: "Several migrations were applied at one and the same moment.",
        23: "The connection is lost before the undo.",
        24: "A table with deferred foreign keys is filled and then altered within the call.",
        25: "Code of a migration ignores its alias and writes to `default`.",
    }
)

_NAMES: Final[Mapping[Vendor, str]] = {
    Vendor.POSTGRESQL: "postgresql",
    Vendor.SQLITE: "sqlite",
    Vendor.MYSQL: "mariadb",
}
_TITLES: Final[Mapping[str, str]] = {"postgresql": "PostgreSQL", "sqlite": "SQLite", "mariadb": "MariaDB"}
_ID: Final = re.compile(r"case-(?P<numbers>[\d+]+)-(?P<about>.+)-(?P<vendor>postgresql|sqlite|mariadb)")
_MODULES: Final = [f"tests.integration.failure_cases.{name}" for name in ("test_moves", "test_calls", "test_meanwhile")]
_PAGE: Final = """\
# Failure cases

What an undo must survive, and the kinds of database on which a test proves that it does: a call of `apply_migrations`
that fails, after which the whole database, dumped over a connection of its own, is what it was before. The numbers say
in how many situations; `python -m pytest tests/integration/failure_cases -k case-7-` runs those of one case.

{table}

{exceptions}
"""


@dataclass(frozen=True, slots=True)
class Proof:
    """A test of one or several cases on one kind of database.

    Args:
        numbers: of the cases.
        about: what it is about.
        vendor: the kind of database, as in the test's id.
        not_yet: why it does not hold, if it does not.
    """

    numbers: Sequence[int]
    about: str
    vendor: str
    not_yet: str | None = None


def proof_id(numbers: Iterable[int], about: str, vendor: Vendor) -> str:
    """Return the id of a test, such as `case-8+13-siblings-mariadb`."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", about.replace("'", "")).strip("-")
    return f"case-{'+'.join(map(str, numbers))}-{words}-{_NAMES[vendor]}"


def case(
    *numbers: int,
    about: str,
    on: Iterable[Vendor] = tuple(Vendor),
    seldom: Container[Vendor] = (),
    not_yet: Mapping[Vendor, str] = MappingProxyType({}),
) -> pytest.MarkDecorator:
    """Make a test with the fixture `every_database` a proof of these cases.

    Args:
        numbers: of the cases.
        about: which side of them.
        on: the kinds of database.
        seldom: of these, those that the short run has no time for.
        not_yet: why it does not hold, by the kinds on which it does not.
    """
    return pytest.mark.parametrize(
        "every_database",
        [
            pytest.param(
                vendor,
                id=proof_id(numbers, about, vendor),
                marks=[*awaited(not_yet.get(vendor)), *([pytest.mark.long] if vendor in seldom else [])],
            )
            for vendor in on
        ],
        indirect=True,
    )


def awaited(not_yet: str | None) -> list[pytest.MarkDecorator]:
    """Return the marks of a proof that does not hold, for this reason; none without one."""
    return [pytest.mark.xfail(strict=True, raises=AssertionError, reason=not_yet)] if not_yet else []


def proofs() -> list[Proof]:
    """Return what the tests say of themselves, in the order of their cases."""
    found = [proof for name in _MODULES for proof in _of(import_module(name))]
    return sorted(found, key=lambda proof: (proof.numbers, proof.about))


def page() -> str:
    """Return the page of the documentation, in Markdown."""
    found = proofs()
    lines = ["| | case | " + " | ".join(_TITLES.values()) + " |", "|---|---|---|---|---|"]
    for number, claim in CASES.items():
        cells = (
            _cell([proof for proof in found if number in proof.numbers and proof.vendor == name]) for name in _TITLES
        )
        lines.append(f"| {number} | {claim} | {' | '.join(cells)} |")
    missing = [
        f"- case {'+'.join(map(str, proof.numbers))}, {_TITLES[proof.vendor]}, {proof.about}: {proof.not_yet}"
        for proof in found
        if proof.not_yet
    ]
    exceptions = "\n".join(["It does not hold yet:", "", *missing]) if missing else "All of them hold."
    return _PAGE.format(table="\n".join(lines), exceptions=exceptions)


def _cell(found: Sequence[Proof]) -> str:
    missing = sum(proof.not_yet is not None for proof in found)
    return f"{len(found) - missing}" + (f", not yet {missing}" if missing else "")


def _of(module: object) -> Iterator[Proof]:
    for name, function in vars(module).items():
        marks = getattr(function, "pytestmark", []) if name.startswith("test_") else []
        for mark in marks:
            for parameters in mark.args[1] if mark.name == "parametrize" else []:
                if match := _ID.fullmatch(str(getattr(parameters, "id", ""))):
                    reasons = [each.kwargs["reason"] for each in parameters.marks if each.name == "xfail"]
                    yield _proof(match, reasons[0] if reasons else None)


def _proof(match: "re.Match[str]", not_yet: str | None = None) -> Proof:
    numbers = tuple(int(number) for number in match["numbers"].split("+"))
    return Proof(numbers, match["about"].replace("-", " "), match["vendor"], not_yet)


def _outcomes(file: str) -> str:
    """Return the table of a run: how many tests of each case passed, and what became of the others."""
    found: dict[tuple[int, str], dict[str, int]] = {}
    for element in ET.parse(file).iter("testcase"):  # noqa: S314 - written by pytest here
        if match := _ID.search(element.attrib["name"]):
            states = {child.tag: child.get("type", "") for child in element}
            outcome = "expected failure" if states.get("skipped") == "pytest.xfail" else next(iter(states), "passed")
            for number in _proof(match).numbers:
                counts = found.setdefault((number, match["vendor"]), {})
                counts[outcome] = counts.get(outcome, 0) + 1
    lines = [f"{'case':>4}  " + "".join(f"{title:<32}" for title in _TITLES.values())]
    for number in CASES:
        cells = (found.get((number, name), {}) for name in _TITLES)
        texts = (", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "-" for counts in cells)
        lines.append(f"{number:>4}  " + "".join(f"{text:<32}" for text in texts).rstrip())
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(_outcomes(sys.argv[1]) if sys.argv[1:] else page())
