"""A schema written down as lines of text, and what two of them differ in."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Fingerprint", "fingerprint", "is_invalid_index_gone"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a database's schema was at one moment.

    Args:
        lines: sorted; each begins with what it describes, such as `table public.shop_order column total: `.
        is_known: whether the vendor can be read at all; if not, there are no lines and nothing is proved.
    """

    lines: tuple[str, ...] = ()
    is_known: bool = True

    def differences(self, other: "Fingerprint") -> tuple[str, ...]:
        """Return what is gone in `other`, after `- `, and what is new there, after `+ `, object by object."""
        before, after = Counter(self.lines), Counter(other.lines)
        changes = [("- ", line) for line in (before - after).elements()]
        changes += [("+ ", line) for line in (after - before).elements()]
        # Both descriptions of one thing stand together, the old one first.
        changes.sort(key=lambda change: (change[1].partition(": ")[0], change[0] == "+ ", change[1]))
        return tuple(sign + line for sign, line in changes)


def is_invalid_index_gone(difference: str) -> bool:
    """Return whether a difference is no loss: what a concurrent build left behind that broke off, and serves nobody."""
    subject, _, text = difference.partition(": ")
    return subject.startswith("- ") and " index " in subject and "invalid" in text.split(", ")


def fingerprint(descriptions: Iterable[tuple[str, str | None]]) -> Fingerprint:
    """Make a fingerprint.

    Args:
        descriptions: of what, and what is to be said of it; text of several lines becomes as many numbered lines, so
            that a difference shows those that differ.
    """
    return Fingerprint(tuple(sorted(line for subject, text in descriptions for line in _lines(subject, text))))


def _lines(subject: str, text: str | None) -> Iterator[str]:
    # A quoted name can hold a line break too.
    subject = subject.replace("\n", "\\n")
    parts = (text or "").split("\n")
    if len(parts) == 1:
        yield f"{subject}: {text}" if text else subject
        return
    for number, part in enumerate(parts, 1):
        yield f"{subject} line {number:04}: {part}"
