"""Which phase each database belongs to: names and globs of names, matched and counted."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from smooth_orchestrator.places import Found
from smooth_orchestrator.suggestions import did_you_mean, quoted

__all__ = ["Assignment", "Patterns", "assign"]


@dataclass(frozen=True, slots=True)
class Patterns:
    """A phase as far as matching goes: its name, and the names and globs that it lists."""

    name: str
    databases: Sequence[str]


@dataclass(frozen=True, slots=True)
class Assignment:
    """The databases of each phase, in the phases' order, and what is wrong with that."""

    phases: tuple[tuple[str, ...], ...]
    found: tuple[Found, ...]


def assign(names: Mapping[str, str], phases: Sequence[Patterns], *, unknown: Collection[str] = ()) -> Assignment:
    """Give every database to the one phase that lists it.

    Args:
        names: every database's name, and the table in `[databases]` that it comes from.
        phases: in order.
        unknown: tables whose databases are not known yet: what they may match is not called a mistake.
    """
    homes: dict[str, int] = {}
    members: list[list[str]] = [[] for _ in phases]
    found: list[Found] = []
    for index, phase in enumerate(phases):
        for entry, pattern in enumerate(phase.databases):
            location = ("phases", index, "databases", entry)
            if pattern in phase.databases[:entry]:
                found.append(Found(location, f"{quoted(pattern)} is listed twice"))
            matches = [name for name in names if fnmatchcase(name, pattern)]
            if not matches and not any(_may_match(pattern, table) for table in unknown):
                found.append(_no_match(location, pattern, names, unknown))
            taken = [name for name in matches if homes.setdefault(name, index) != index]
            if taken:
                home = phases[homes[taken[0]]].name
                others = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
                found.append(Found(location, f"{quoted(taken[0])}{others} is in phase {quoted(home)} already"))
    for name in names:
        if name in homes:
            members[homes[name]].append(name)
    found.extend(_homeless(names, homes))
    return Assignment(tuple(map(tuple, members)), tuple(found))


def _no_match(
    location: tuple[str | int, ...], pattern: str, names: Mapping[str, str], unknown: Collection[str]
) -> Found:
    tables = {table for name, table in names.items() if name != table}.union(unknown)
    hint = f"did you mean {quoted(pattern + ':*')}?" if pattern in tables else None
    candidates = [*names, *(f"{table}:*" for table in sorted(tables))]
    return Found(location, f"no database matches {quoted(pattern)}", hint or did_you_mean(pattern, candidates))


def _homeless(names: Mapping[str, str], homes: Collection[str]) -> list[Found]:
    by_table: dict[str, list[str]] = defaultdict(list)
    for name, table in names.items():
        if name not in homes:
            by_table[table].append(name)
    hint = "list it in the databases of a phase"
    return [
        Found(
            ("databases", table),
            f"{quoted(missing[0])} and {len(missing) - 1} more are in no phase"
            if len(missing) > 1
            else f"{quoted(missing[0])} is in no phase",
            hint,
        )
        for table, missing in by_table.items()
    ]


def _may_match(pattern: str, table: str) -> bool:
    """Return whether the pattern could match the table's own name or one of its databases, `table:alias`."""
    glob = min((pattern.index(char) for char in "*?[" if char in pattern), default=None)
    if glob is None:
        return pattern == table or pattern.startswith(f"{table}:")
    literal = pattern[:glob]
    return f"{table}:".startswith(literal) or literal.startswith(f"{table}:")
