"""Clients of a release that is live: they repeat statements at a steady rate, and note what each one took."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, cycle

import psycopg

__all__ = ["Load", "Waits", "serving"]

# From here on somebody notices.
_STALL_S = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """What some sessions do.

    Args:
        statements: repeated in turns, each in a transaction of its own.
        rate_hz: how many of them a session begins in a second, if it is not kept waiting.
        sessions: how many there are.
    """

    statements: Sequence[str]
    rate_hz: float
    sessions: int = 1


@dataclass(slots=True)
class Waits:
    """How long the statements took, from when they were sent to their answer, once the clients have ended."""

    _taken: list[tuple[float, list[float]]] = field(default_factory=list)

    @property
    def longest_s(self) -> float:
        """The longest time that a client had to wait for one statement."""
        return max(chain.from_iterable(taken_s for _every_s, taken_s in self._taken))

    @property
    def stalled_s(self) -> float:
        """For how long the client that was worst off waited, of all its statements that took more than 100 ms."""
        return max(sum(each for each in taken_s if each > _STALL_S) for _every_s, taken_s in self._taken)

    def share_s(self, share: float) -> float:
        """Return within what time this share of the statements was answered.

        Those that a client would have sent while it waited are counted, each with what was left of the wait: else a
        long stall would be one statement among thousands.
        """
        whole = sorted(chain.from_iterable(_with_unsent(taken_s, every_s) for every_s, taken_s in self._taken))
        return whole[math.ceil(share * len(whole)) - 1]

    def add(self, every_s: float, taken_s: list[float]) -> None:
        """Take note of one client's statements, which it sent at these intervals."""
        self._taken.append((every_s, taken_s))


def _with_unsent(taken_s: Sequence[float], every_s: float) -> Iterator[float]:
    for each in taken_s:
        yield each
        yield from (each - every_s * number for number in range(1, math.ceil(each / every_s)))


@contextmanager
def serving(dsn: str, *loads: Load) -> Iterator[Waits]:
    """Have clients at work for as long as the block.

    Args:
        dsn: of the database.
        loads: each session has a thread and a connection of its own.

    Yields:
        What is to be read behind the block.

    Raises:
        psycopg.Error: a statement of a client failed.
    """
    waits, is_over = Waits(), threading.Event()
    each = [load for load in loads for _ in range(load.sessions)]
    with ExitStack() as stack, ThreadPoolExecutor(len(each)) as pool:
        sessions = [stack.enter_context(psycopg.connect(dsn, autocommit=True)) for _ in each]
        clients = [pool.submit(_serve, *client, is_over) for client in zip(sessions, each, strict=True)]
        try:
            yield waits
        finally:
            is_over.set()
        for load, client in zip(each, clients, strict=True):
            waits.add(1 / load.rate_hz, client.result())


def _serve(session: psycopg.Connection, load: Load, is_over: threading.Event) -> list[float]:
    taken_s: list[float] = []
    due_s = time.perf_counter()
    for statement in cycle(load.statements):
        began_s = time.perf_counter()
        session.execute(statement.encode())
        taken_s.append(time.perf_counter() - began_s)
        # Who was kept waiting leaves out what it could not send meanwhile.
        due_s = max(due_s + 1 / load.rate_hz, began_s + taken_s[-1])
        if is_over.wait(max(0.0, due_s - time.perf_counter())):
            break
    return taken_s
