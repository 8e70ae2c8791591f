"""Which databases a plan names, from what a project's settings tell of them: one each, shards as a glob. Pure."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator.initial.discovery import is_text, slug
from smooth_orchestrator.suggestions import quoted

__all__ = ["Entry", "LeftOut", "choose", "without_first"]

_SUPPORTED: Final = frozenset({"postgresql", "sqlite", "mysql"})
# "shard_eu", "tenants-17": whatever follows is another one of them. Else what differs in a number alone.
_NAMED: Final = re.compile(r"((?:shard|tenant)s?[_-]).+", re.DOTALL)
_NUMBERED: Final = re.compile(r"(.*?)[0-9]+", re.DOTALL)
# What a glob gives a meaning to.
_SPECIAL: Final = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An alias that the plan does not name.

    Args:
        alias: which.
        reason: in words.
    """

    alias: str
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A table of the plan's databases.

    Args:
        name: of the table.
        aliases: those of its databases, in the order of the settings.
        glob: what they are by; None of a single one.
    """

    name: str
    aliases: tuple[str, ...]
    glob: str | None = None

    @property
    def pattern(self) -> str:
        """What a phase calls all of them."""
        return self.name if self.glob is None else f"{self.name}:*"


def choose(databases: Sequence[DatabaseFacts]) -> tuple[list[Entry], list[LeftOut]]:
    """Return the entries for a project's databases, single ones first, and what is left out of them.

    Args:
        databases: as its settings have them.
    """
    first = _first_names(databases)
    left_out = [LeftOut(facts.alias, reason) for facts in databases if (reason := _why_not(facts, first))]
    out = {each.alias for each in left_out}
    chosen = [facts.alias for facts in databases if facts.alias not in out]
    known = [facts.alias for facts in databases if not facts.mirror]
    singles: list[Entry] = []
    fleets: list[Entry] = []
    names: set[str] = set()
    for stem, group in _groups(chosen):
        if stem is not None and (glob := _glob(stem, group, known)) is not None:
            fleets.append(
                Entry(_unused(f"{slug(stem).rstrip('_-').removesuffix('s') or 'database'}s", names), tuple(group), glob)
            )
        else:
            singles += [Entry(_unused(_name(alias, chosen), names), (alias,)) for alias in group]
    return singles + fleets, left_out


def without_first(entry: Entry) -> tuple[str, tuple[str, ...]] | None:
    """Return what a phase calls one database of a glob, and what another one calls all the others.

    Returns:
        The name of the one with the shortest alias, and patterns for the rest; None where no patterns are that exact.
    """
    one, *others = sorted(entry.aliases, key=len)
    start = max(index for index in range(len(one)) if all(alias[:index] == one[:index] for alias in others))
    if not re.fullmatch("[A-Za-z0-9]+", one[start:]) or _SPECIAL & {*one[:start]}:
        return None
    patterns = [f"{one[:index]}[!{one[index]}]*" for index in range(start, len(one))] + [f"{one}?*"]
    used = [pattern for pattern in patterns if any(fnmatchcase(alias, pattern) for alias in others)]
    if not all(any(fnmatchcase(alias, pattern) for pattern in used) for alias in others):
        return None  # one's alias is the beginning of another's
    return f"{entry.name}:{one}", tuple(f"{entry.name}:{pattern}" for pattern in used)


def _first_names(databases: Iterable[DatabaseFacts]) -> dict[str, str]:
    """Return the alias under which each physical database is to stand, by its identity."""
    named = [(facts, _stem(facts.alias)) for facts in databases if not facts.mirror]
    sizes = Counter(stem for _facts, stem in named if stem is not None)
    first: dict[str, str] = {}
    # Of two names of one database a shard's is kept: without it a glob would have a gap.
    for facts, _stem_of_it in sorted(named, key=lambda each: 0 if each[1] is None else -sizes[each[1]]):
        first.setdefault(facts.identity, facts.alias)
    return first


def _why_not(facts: DatabaseFacts, first: Mapping[str, str]) -> str | None:
    alias, same = facts.alias, first.get(facts.identity, facts.alias)
    in_memory = facts.vendor == "sqlite" and any(mark in facts.identity for mark in (":memory:", "mode=memory"))
    reasons = (
        (facts.mirror, "its settings say that it mirrors another alias"),
        (facts.vendor not in _SUPPORTED, f"no deploy supports its engine ({quoted(facts.vendor)})"),
        (facts.refusal, facts.refusal),
        (in_memory, "it is in memory, and ends with its process"),
        (not alias or "\0" in alias or not is_text(alias), "no plan can hold such a name"),
        (same != alias, f"it is the same database as {quoted(same)}"),
    )
    return next((reason for applies, reason in reasons if applies), None)


def _stem(alias: str) -> str | None:
    match = _NAMED.fullmatch(alias) or _NUMBERED.fullmatch(alias)
    return match[1] if match else None


def _groups(aliases: Iterable[str]) -> Iterator[tuple[str | None, list[str]]]:
    groups: dict[tuple[str | None, str], list[str]] = {}
    for alias in aliases:
        stem = _stem(alias)
        groups.setdefault((stem, alias if stem is None else ""), []).append(alias)
    for (stem, _alias), group in groups.items():
        yield (stem if len(group) > 1 else None), group


def _glob(stem: str, group: Collection[str], known: Collection[str]) -> str | None:
    """Return what matches a group's aliases and no other one, if anything does."""
    escaped = re.sub(r"([*?[])", r"[\1]", stem)
    for glob in (f"{escaped}*", f"{escaped}[0-9]*"):
        if {alias for alias in known if fnmatchcase(alias, glob)} == {*group}:
            return glob
    return None


def _name(alias: str, aliases: Collection[str]) -> str:
    return "primary" if alias == "default" and "primary" not in aliases else slug(alias) or "database"


def _unused(name: str, names: set[str]) -> str:
    """Return the name, or one like it that is not taken, and take it."""
    chosen, number = name, 1
    while chosen in names:
        number += 1
        chosen = f"{name}-{number}"
    names.add(chosen)
    return chosen
