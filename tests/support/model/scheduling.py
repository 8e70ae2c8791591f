"""Who goes on next: processes whose steps happen in any order, and which may be killed between two of them.

Whatever a process does is a generator that yields before each effect, so that a scheduler can have anything else happen
in between. The points at which a process can be killed are those of the product.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from itertools import cycle
from typing import Any, TypeVar

__all__ = ["ALWAYS", "Failure", "Killed", "Process", "Scheduler", "Steps", "Task", "WorkerLost"]

_T = TypeVar("_T")
Steps = Generator[Callable[[], bool], None, _T]
"""What a process does: it yields what must be true before it goes on, and returns its result."""


def ALWAYS() -> bool:  # noqa: N802 - a constant, which is called
    """Return that a process can go on."""
    return True


class Killed(Exception):  # noqa: N818 - named by what happened
    """The process that ran this has killed itself."""


class Failure(Exception):  # noqa: N818 - named as the product's events are
    """Something answered with an error, of this kind."""


class WorkerLost(Failure):
    """A worker has ended before it could answer."""


class Task:
    """A generator under way, in a process."""

    def __init__(self, process: "Process", steps: Steps[Any]) -> None:
        self.process = process
        self.failure: Failure | None = None
        self.is_done = False
        self._steps = steps
        self._awaits: Callable[[], bool] = ALWAYS

    @property
    def is_ready(self) -> bool:
        """Whether it can go on."""
        return self.process.is_running and self._awaits()

    def advance(self) -> None:
        """Go on to the next effect."""
        try:
            self._awaits = next(self._steps)
        except StopIteration:
            self.is_done = True
        except Killed:
            self.is_done = True
        except Failure as failure:
            self.failure, self.is_done = failure, True


class Scheduler:
    """Chooses which task goes on next.

    Args:
        order: numbers, used again and again: each chooses among the tasks that can go on.
        after_each: called after every step.
    """

    def __init__(self, order: Sequence[int], after_each: Callable[[], None]) -> None:
        self._order = cycle(order or (0,))
        self._after_each = after_each
        self._tasks: list[Task] = []

    def spawn(self, process: "Process", steps: Steps[Any]) -> Task:
        """Begin a task."""
        task = Task(process, steps)
        self._tasks.append(task)
        return task

    def step(self) -> bool:
        """Let one task go on, and return whether one could."""
        self._tasks = [task for task in self._tasks if not task.is_done and task.process.is_alive]
        ready = [task for task in self._tasks if task.is_ready]
        if not ready:
            return False
        ready[next(self._order) % len(ready)].advance()
        self._after_each()
        return True

    def together(self, process: "Process", each: Iterable[Steps[Any]]) -> Steps[None]:
        """Run several in one process at the same time, to their end."""
        tasks = [self.spawn(process, steps) for steps in each]
        yield lambda: all(task.is_done for task in tasks)
        for task in tasks:
            if task.failure is not None:
                raise task.failure


class Process:
    """A process that may kill itself.

    Args:
        strike: at which point, such as `commit.after`, and at which of its visits, from 1.

    Attributes:
        reached: how often it has come to each point.
    """

    def __init__(self, strike: tuple[str, int] | None) -> None:
        self.strike = strike
        self.is_alive = True
        self.is_frozen = False
        self.reached: Counter[str] = Counter()

    @property
    def is_running(self) -> bool:
        """Whether it does anything."""
        return self.is_alive and not self.is_frozen

    def reach(self, point: str) -> None:
        """Kill this process if it was asked for at this point."""
        self.reached[point] += 1
        if self.strike == (point, self.reached[point]):
            self.die()
            raise Killed(point)

    def die(self) -> None:
        """End."""
        self.is_alive = False

    def passing(self, name: str, effect: Callable[[], None]) -> Steps[None]:
        """Have an effect, with the point before it and, unless it raises, the one after it."""
        yield ALWAYS
        self.reach(f"{name}.before")
        effect()
        self.reach(f"{name}.after")
