"""A schema written down as lines of text, and what two of them differ in."""

import base64
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["Fingerprint", "fingerprint", "is_invalid_index_gone"]

# Raised whenever another version would describe the same schema by other lines.
_FORMAT = "1"


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

    def packed(self) -> str:
        """Return it as short ASCII text, for `unpacked`."""
        text = "\n".join([_FORMAT, str(int(self.is_known)), *self.lines])
        return base64.b85encode(zlib.compress(text.encode(errors="surrogatepass"))).decode("ascii")

    @classmethod
    def unpacked(cls, text: str) -> "Fingerprint | None":
        """Return what was packed; None for what another version has packed."""
        packed = zlib.decompress(base64.b85decode(text)).decode(errors="surrogatepass")
        written, is_known, *lines = packed.split("\n")
        return cls(tuple(lines), is_known=is_known == "1") if written == _FORMAT else None


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
