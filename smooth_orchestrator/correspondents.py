"""Servers far away that are told how a command went: one that is there is waited for at its end, and no other.

Of one that says nothing nobody knows whether it is slow or gone. So each is asked at the beginning, beside the command,
and what speaks to it is not even imported before it has answered.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from smooth_orchestrator.leisure import run_beside

__all__ = ["PATIENCE_S", "Correspondent"]

PATIENCE_S: Final = 2.0
"""How long the end of a command may wait for one that has answered, all in all."""

# Who has kept silent for so long is not waited for. A deploy takes longer: it starts a Django, at least.
_SILENCE_S: Final = 0.5

# How long the end waits to hear whether one that was away has come up since.
_MOMENT_S: Final = 0.03

# The asking itself ends some time, in a command that goes on for an hour; and is done again then, and when it failed.
_ASKING_S: Final = 60.0
_PAUSE_S: Final = 5.0


class Correspondent:
    """One that is told of a command.

    Args:
        name: of its threads.
        url: where it is. It is asked there for nothing in particular, until it has answered once.
    """

    def __init__(self, name: str, url: str) -> None:
        self.error: OSError | None = None
        """Why it is taken to be away."""
        self._name = name
        self._answers = threading.Event()
        self._ends = threading.Event()
        self._asked_s = time.monotonic()
        self._asking = run_beside(name, lambda: self._ask(url))

    @property
    def has_answered(self) -> bool:
        """Whether somebody is there."""
        return self._answers.is_set()

    def wait(self) -> None:
        """Return once it has answered, which may be never: for threads beside the program."""
        self._answers.wait()

    def tell(self, telling: Callable[[], object]) -> bool:
        """Do what tells it how the command went, for as long as it may be waited for.

        Args:
            telling: is begun once it has answered, and goes on beside the program until that ends.

        Returns:
            Whether it is done.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        self._ends.set()
        self._asking.join(self._patience_s())
        if not self.has_answered:
            return False
        thread = run_beside(self._name, telling)
        thread.join(max(0.0, deadline_s - time.monotonic()))
        return not thread.is_alive()

    def _ask(self, url: str) -> None:
        # Most commands tell nobody.
        from smooth_orchestrator.asking import ask  # noqa: PLC0415 - see above

        self._asked_s = time.monotonic()
        is_last = False
        while not is_last:
            # One that is away may come up, and is asked for the last time when the command ends.
            is_last = self.error is not None and self._ends.wait(_PAUSE_S)
            try:
                ask(url, _ASKING_S)
            except OSError as error:
                self.error = error
            else:
                self._answers.set()
                self.error = None
                return

    def _patience_s(self) -> float:
        if self.has_answered or self.error is not None:
            return _MOMENT_S
        return max(0.0, self._asked_s + _SILENCE_S - time.monotonic())
