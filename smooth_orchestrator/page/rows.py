"""The tables of a page: each database, the migrations that several have in common, what waits for `finalise`. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from statistics import median
from typing import Final

from smooth_orchestrator.page.account import Account
from smooth_orchestrator.page.lanes import Axis, Lane
from smooth_orchestrator.page.problems import Problem
from smooth_orchestrator.page.wording import counted
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport
from smooth_orchestrator.timeline import Span, SpanKind

__all__ = ["Held", "Moved", "MovedMigration", "Row", "held_back", "moved_alike", "rows_of"]

# Of lists of migrations that no two databases have in common, and of what is held back, as many have room.
_MOST_LISTS: Final = 40
_MOST_MIGRATIONS: Final = 2_000
_MOST_HELD: Final = 300

OUTCOMES: Final[Mapping[DatabaseOutcome, str]] = {
    DatabaseOutcome.COMMITTED: "committed",
    DatabaseOutcome.FAILED: "failed",
    DatabaseOutcome.ROLLED_BACK: "rolled back",
    DatabaseOutcome.UNCHANGED: "unchanged",
    DatabaseOutcome.IN_DOUBT: "in doubt",
}
"""Outcomes as a page says them."""

_STATES: Final = {SpanKind.APPLIED: "applied", SpanKind.UNAPPLIED: "taken back", SpanKind.FAILED: "failed"}


@dataclass(frozen=True, slots=True)
class Row:
    """One database.

    Args:
        report: its own.
        outcome: in words.
        moved: how many migrations became what, in words.
        moves: how many.
        list_number: of the list that names them; None where there is none.
        problem: the number of its error.
        lane: its line on the time axis, where anything is known.
    """

    report: DatabaseReport
    outcome: str
    moved: str
    moves: int
    list_number: int | None
    problem: int | None
    lane: Lane | None


@dataclass(frozen=True, slots=True)
class MovedMigration:
    """One migration of a list.

    Args:
        name: `app.name`.
        state: what became of it.
        median_ms: how long it took on the databases of the list; None where that is unknown.
        longest_ms: on the one where it took the longest.
        slowest: that one.
    """

    name: str
    state: str
    median_ms: float | None = None
    longest_ms: float | None = None
    slowest: str | None = None


@dataclass(slots=True)
class Moved:
    """What some databases had moved alike.

    Args:
        number: of the list, from 1.
        names: `app.name` and what became of it, in order.
        databases: which.
        migrations: the same with their times.
    """

    number: int
    names: tuple[tuple[str, str], ...]
    databases: list[str] = field(default_factory=list)
    migrations: Sequence[MovedMigration] = ()

    @property
    def title(self) -> str:
        """How many migrations."""
        return counted(len(self.names), "migration")


@dataclass(slots=True)
class Held:
    """One contract half that waits.

    Args:
        migration: whose.
        operation: in words.
        is_own: whether this run has held it back, and not an earlier one.
        databases: where.
    """

    migration: str
    operation: str
    is_own: bool
    databases: list[str] = field(default_factory=list)


def moved_alike(account: Account) -> list[Moved]:
    """Return what was moved, each list with the databases that have it in common; the one of most databases first."""
    lists: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for database in account.report.databases:
        spans = account.timeline.spans.get(database.database, ())
        if names := tuple(_names(database, spans)):
            lists.setdefault(names, []).append(database.database)
    ordered = sorted(lists.items(), key=lambda each: -len(each[1]))
    return [
        Moved(number, names, databases, [*_timed(names, databases, account)])
        for number, (names, databases) in enumerate(_fitting(ordered), 1)
    ]


def _fitting(
    lists: Sequence[tuple[tuple[tuple[str, str], ...], list[str]]],
) -> Iterator[tuple[tuple[tuple[str, str], ...], list[str]]]:
    room = _MOST_MIGRATIONS
    for names, databases in lists[:_MOST_LISTS]:
        room -= len(names)
        if room >= 0:
            yield names, databases


def _names(database: DatabaseReport, spans: Sequence[Span]) -> Iterator[tuple[str, str]]:
    told = {**dict.fromkeys(database.applied, "applied"), **dict.fromkeys(database.unapplied, "taken back")}
    # What went back in one transaction with the one that failed is told of nowhere else.
    told |= {span.label: "taken back" for span in spans if span.kind is SpanKind.APPLIED and span.label not in told}
    told |= {span.label: "failed" for span in spans if span.kind is SpanKind.FAILED}
    if database.error and database.error.migration:
        told[database.error.migration] = "failed"
    yield from told.items()


def _timed(names: Sequence[tuple[str, str]], databases: Sequence[str], account: Account) -> Iterator[MovedMigration]:
    times: dict[str, list[tuple[float, str]]] = {}
    for database in databases:
        for span in account.timeline.spans.get(database, ()):
            if span.kind in _STATES and span.kind is not SpanKind.UNAPPLIED:
                times.setdefault(span.label, []).append((span.took_ms, database))
    for name, state in names:
        known = times.get(name)
        if known is None:
            yield MovedMigration(name, state)
        else:
            longest_ms, slowest = max(known)
            yield MovedMigration(name, state, median(took_ms for took_ms, _ in known), longest_ms, slowest)


def rows_of(account: Account, axis: Axis | None, lists: Sequence[Moved], problems: Sequence[Problem]) -> Iterator[Row]:
    """Yield a row for each database, in the plan's order."""
    number_of = {name: each.number for each in lists for name in each.databases}
    problem_of = {name: each.number for each in reversed(problems) for name in each.databases}
    for database in account.report.databases:
        spans = account.timeline.spans.get(database.database, ())
        counts = Counter(state for _name, state in _names(database, spans))
        yield Row(
            report=database,
            outcome=OUTCOMES[database.outcome],
            moved=", ".join(f"{count} {state}" for state, count in counts.items() if count),
            moves=sum(counts.values()),
            list_number=number_of.get(database.database),
            problem=problem_of.get(database.database),
            lane=axis.lane(spans) if axis and spans else None,
        )


def held_back(account: Account) -> tuple[list[Held], int]:
    """Return what waits for `finalise` after the run, and how much more there is than has room."""
    found: dict[tuple[str, str, bool], Held] = {}
    for database in account.report.databases:
        for half in database.contract_pending:
            migration, _, operation = half.partition(": ")
            key = (migration, operation, migration in database.applied)
            found.setdefault(key, Held(*key)).databases.append(database.database)
    return [*islice(found.values(), _MOST_HELD)], max(0, len(found) - _MOST_HELD)
