"""Where in the plan a mistake stands."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.suggestions import quoted

__all__ = ["Found", "Location", "in_file_order", "place"]

Location = tuple[str | int, ...]

# No key of a plan is deeper, while a dotted key of a hostile one may be deeper than Python's stack.
_DEEPEST = 4
_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Found:
    """A mistake beside its location, from which its order and its printed place follow."""

    location: Location
    message: str
    hint: str | None = None

    def mistake(self) -> Mistake:
        """Return it as users see it."""
        return Mistake(place(self.location), self.message, self.hint)


def place(location: Location) -> str:
    """Return a location as a user would write it: `phases[1].databases[0]`, `databases."my db".alias`."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE.fullmatch(part) else quoted(part)
            text += f".{name}" if text else name
    return text


def in_file_order(found: Iterable[Found], document: Mapping[str, object]) -> list[Found]:
    """Return what was found in the order of the document; what is missing from it comes where its table begins."""
    order = {location: index for index, location in enumerate(_locations((), document))}

    def position(item: Found) -> int:
        location = item.location
        while location not in order:
            location = location[:-1]
        return order[location]

    return sorted(found, key=position)


def _locations(location: Location, node: object) -> Iterator[Location]:
    yield location
    if len(location) == _DEEPEST:
        return
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _locations((*location, key), value)
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _locations((*location, index), value)
