"""Who hears a command's events and is told its report, where somebody has asked for that: none of them fails it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from smooth_orchestrator.cli.options import Invocation
from smooth_orchestrator.logs import hearing
from smooth_orchestrator.report import Report

__all__ = ["Watcher", "all_hearing", "watchers_of"]


class Watcher(Protocol):
    """Hears one command."""

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take note of one event. Must not wait."""

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
    return [each for each in watchers if each is not None]


@contextmanager
def all_hearing(watchers: Sequence[Watcher]) -> Iterator[None]:
    """Let them hear every event for the length of a context."""
    with ExitStack() as stack:
        for each in watchers:
            stack.enter_context(hearing(each.hear))
        yield
