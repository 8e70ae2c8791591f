"""What was recorded in a worker, and what of it is to be replayed on the next database."""

from collections import Counter
from collections.abc import Hashable
from typing import Final

from smooth_migrations.replay.script import Script

__all__ = ["Shelf"]

# Databases of one kind that differ in their schemas are few, or nothing is alike.
_MOST: Final = 3


class Shelf:
    """Scripts by the kind of database that they were recorded on.

    Databases with the same migrations may differ in their schemas all the same, and only the end shows it. So what was
    right most often is tried first, and of what was so equally often the oldest.
    """

    def __init__(self) -> None:
        self._scripts: dict[Hashable, list[Script]] = {}
        self._uses: Counter[str] = Counter()
        self._never: set[Hashable] = set()

    def is_worth_recording(self, kind: Hashable) -> bool:
        """Return whether what is done to a database of a kind may be right for others."""
        return kind not in self._never

    def give_up(self, kind: Hashable) -> None:
        """Take note that what was done to a database of a kind is not to be replayed: nor will be that of others."""
        self._never.add(kind)

    def find(self, kind: Hashable) -> Script | None:
        """Return the script to be tried on a database of a kind, if there is any."""
        return next(iter(self._scripts.get(kind, ())), None)

    def keep(self, kind: Hashable, script: Script) -> None:
        """Keep what was recorded on a database, or was right for one."""
        scripts = self._scripts.setdefault(kind, [])
        self._uses[script.fingerprint] += 1
        if not any(each.fingerprint == script.fingerprint for each in scripts):
            scripts.append(script)
        scripts.sort(key=lambda each: -self._uses[each.fingerprint])
        del scripts[_MOST:]
