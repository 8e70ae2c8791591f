"""Do together what several tasks ask for at once: who comes while the last is done waits, and is done with the others.

So one commit, and one wait for a disk, serves all that came meanwhile.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import anyio

__all__ = ["Together"]

# So that a statement of many does not take longer than its connection waits for an answer.
_AT_ONCE: Final = 500

_Asked = TypeVar("_Asked")
_Answer = TypeVar("_Answer")
_Ask = Callable[[Sequence[_Asked]], Awaitable[Sequence[_Answer]]]


@dataclass(slots=True, eq=False)
class _Waiting(Generic[_Asked, _Answer]):
    """One that waits, and what came of it."""

    asked: _Asked
    answers: list[_Answer]
    error: Exception | None = None

    @property
    def is_over(self) -> bool:
        return bool(self.answers) or self.error is not None


class Together(Generic[_Asked, _Answer]):
    """Asks for many at once, in the order in which they came.

    Args:
        lock: held meanwhile.
    """

    def __init__(self, lock: anyio.Lock) -> None:
        self._lock = lock
        self._waiting: list[_Waiting[_Asked, _Answer]] = []

    async def do(self, asked: _Asked, ask: _Ask[_Asked, _Answer]) -> _Answer:
        """Return the answer to one. Not to be cancelled: others may wait for what this task has begun.

        Args:
            asked: what it is about.
            ask: does it for many, and returns the answer to each in their order; the same each time. What it raises is
                raised for all of them.
        """
        mine: _Waiting[_Asked, _Answer] = _Waiting(asked, [])
        self._waiting.append(mine)
        async with self._lock:
            while not mine.is_over:
                await self._do_some(ask)
        if mine.error is not None:
            raise mine.error
        return mine.answers[0]

    async def _do_some(self, ask: _Ask[_Asked, _Answer]) -> None:
        some, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        try:
            answers = await ask([each.asked for each in some])
        except Exception as error:  # noqa: BLE001 - it is raised where each of them waits
            for each in some:
                each.error = error
        else:
            for each, answer in zip(some, answers, strict=True):
                each.answers.append(answer)
