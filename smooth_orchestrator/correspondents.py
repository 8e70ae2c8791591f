"""Servers far away that are told how a command went: one that is there is waited for at its end, and no other.

Of one that says nothing nobody knows whether it is slow or gone. So each is asked at the beginning, beside the command,
and how long it has kept silent says at the end what there is to hope for.
"""

import time
from collections.abc import Callable
from typing import Final

from smooth_orchestrator.leisure import run_beside

__all__ = ["PATIENCE_S", "Correspondent"]

PATIENCE_S: Final = 2.0
"""How long the end of a command may wait for one that answers, all in all."""

# Who has kept silent for so long is taken to be gone: a packet that was lost on the way is sent again after one second.
_SILENCE_S: Final = 1.1

# What one that is taken to be gone gets all the same: it may have come up since.
_MOMENT_S: Final = 0.05

# The asking itself ends some time, in a command that goes on for an hour.
_ASKING_S: Final = 60.0


class Correspondent:
    """One that is told of a command.

    Args:
        name: of its threads.
        url: where it is. It is asked there once, for nothing in particular.
    """

    def __init__(self, name: str, url: str) -> None:
        self.has_answered = False
        self._name = name
        self._is_away = False
        self._asked_s = time.monotonic()
        run_beside(name, lambda: self._ask(url))

    def tell(self, telling: Callable[[], object]) -> bool:
        """Do what tells it how the command went, for as long as it may be waited for.

        Args:
            telling: goes on beside the program after that, until the program ends.

        Returns:
            Whether it is done.
        """
        began_s = time.monotonic()
        thread = run_beside(self._name, telling)
        thread.join(self._patience_s(began_s))
        if self.has_answered:
            thread.join(max(0.0, began_s + PATIENCE_S - time.monotonic()))
        return not thread.is_alive()

    def _ask(self, url: str) -> None:
        # Most commands tell nobody.
        from smooth_orchestrator.asking import is_there  # noqa: PLC0415 - see above

        self._asked_s = time.monotonic()
        if is_there(url, _ASKING_S):
            self.has_answered = True
        else:
            self._is_away = True

    def _patience_s(self, now_s: float) -> float:
        if self.has_answered:
            return PATIENCE_S
        return _MOMENT_S if self._is_away else max(_MOMENT_S, self._asked_s + _SILENCE_S - now_s)
