"""How long a call waits between two attempts at a lock."""

import random
from collections.abc import Callable

from smooth_migrations.observer import Observer
from smooth_migrations.options import Options

__all__ = ["pausing"]

_FIRST_S = 0.1
_LONGEST_S = 5.0


def pausing(options: Options, observer: Observer) -> Callable[[int, BaseException], None]:
    """Return what tells of an attempt that has failed and waits, longer each time, given its number and why."""

    def pause(attempt: int, error: BaseException) -> None:
        delay_s = random.uniform(0.5, 1.0) * min(_FIRST_S * 2**attempt, _LONGEST_S)  # noqa: S311 - jitter, no secret
        observer.retrying(attempt, delay_s, error)
        options.pause(delay_s)

    return pause
