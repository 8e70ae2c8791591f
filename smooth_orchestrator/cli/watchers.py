"""Who hears a command's events and is told its report, where somebody has asked for that: none of them fails it."""

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from smooth_orchestrator import logs
from smooth_orchestrator.cli.options import Invocation
from smooth_orchestrator.events import EventName
from smooth_orchestrator.report import Report

__all__ = ["Watcher", "all_at_work", "tell_all", "watchers_of"]


class Watcher(Protocol):
    """Hears one command."""

    def at_work(self) -> AbstractContextManager[None]:
        """Hear every event for the length of a context."""

    def end(self, report: Report) -> None:
        """Take note of how the command went; may wait for a second or two."""


def watchers_of(invocation: Invocation) -> list[Watcher]:
    """Return who watches a command.

    Raises:
        PlanInvalid: what was asked for is not installed, or cannot be.
    """
    watchers: list[Watcher | None] = []
    if invocation.metrics_file is not None or invocation.pushgateway is not None:
        from smooth_orchestrator.metrics import recorder  # noqa: PLC0415 - most commands are not measured

        watchers.append(recorder(invocation.metrics_file, invocation.pushgateway))
    if any(name.startswith("OTEL_") for name in os.environ):
        from smooth_orchestrator.traces import tracer_of  # noqa: PLC0415 - most are not traced either

        watchers.append(tracer_of(invocation.command, os.environ))
    return [each for each in watchers if each is not None]


@contextmanager
def all_at_work(watchers: Sequence[Watcher]) -> Iterator[None]:
    """Let them hear every event for the length of a context."""
    with ExitStack() as stack:
        for each in watchers:
            stack.enter_context(each.at_work())
        yield


def tell_all(watchers: Sequence[Watcher], report: Report) -> None:
    """Let them take note of how the command went, all at once: it waits for the slowest, and not for each in turn."""

    def tell(watcher: Watcher) -> None:
        try:
            watcher.end(report)
        except Exception as error:  # noqa: BLE001 - who watches a command does not fail it
            logs.get_logger().warning(EventName.LOG_MESSAGE, logger=__name__, message="a watcher failed", error=error)

    threads = [threading.Thread(target=tell, args=(each,), name="watcher") for each in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
