"""The errors of a run as its page lists them: the first cause first, and what many databases have only once. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.render import database_of
from smooth_orchestrator.report import Report, RunError

__all__ = ["Facts", "Problem", "longest_text", "problems_of"]

_MOST_PROBLEMS: Final = 100

# Of characters: all errors together, and the texts of one of them at the least and at the most.
_ROOM: Final = 50_000
_LEAST: Final = 200
_MOST: Final = 4_000


class Facts(NamedTuple):
    """What an error says; of errors that say the same a page shows one.

    Args:
        kind: its stable code or class, or the place of a mistake.
        message: in words.
        sqlstate: the server's, where there is one.
        migration: the one at work.
        hint: what to do about it.
        detail: what the server adds.
        operation: of the migration, in Django's words.
        place: `file:line` of it.
    """

    kind: str
    message: str
    sqlstate: str | None = None
    migration: str | None = None
    hint: str | None = None
    detail: str | None = None
    operation: str | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """One error, or one that several databases have.

    Args:
        number: its place in the list, from 1.
        facts: what it says.
        databases: where it happened.
        blockers: who held the locks that were not to be had: of each database others.
    """

    number: int
    facts: Facts
    databases: list[str]
    blockers: list[str]


def problems_of(report: Report) -> tuple[list[Problem], int]:
    """Return a run's errors, and how many more there are than have room."""
    found: dict[Facts, tuple[dict[str, None], dict[str, None]]] = {}
    for error, database in _errors(report):
        names, blockers = found.setdefault(_facts(error), ({}, {}))
        if database is not None:
            names[database] = None
        if isinstance(error, RunError):
            blockers.update(dict.fromkeys(error.blockers))
    shown = islice(found.items(), _MOST_PROBLEMS)
    problems = [
        Problem(number, facts, [*names], [*blockers]) for number, (facts, (names, blockers)) in enumerate(shown, 1)
    ]
    return problems, len(found) - len(problems)


def longest_text(problems: int) -> int:
    """Return how long a message may be that is shown among so many others."""
    return min(_MOST, max(_LEAST, _ROOM // max(1, problems)))


def _errors(report: Report) -> Iterator[tuple[RunError | Mistake, str | None]]:
    """Yield each error with its database; the first cause first, then what the report tells of each database."""
    for error in (report.error, *report.errors):
        if isinstance(error, Mistake):
            yield error, None
        elif error is not None:
            yield error, database_of(error, report)
    for each in report.databases:
        if each.error is not None:
            yield each.error, each.database


def _facts(error: RunError | Mistake) -> Facts:
    if isinstance(error, Mistake):
        return Facts(error.place, error.message, hint=error.hint)
    return Facts(
        error.type,
        error.message,
        error.sqlstate,
        error.migration,
        error.hint,
        error.detail,
        error.operation,
        error.place,
    )
