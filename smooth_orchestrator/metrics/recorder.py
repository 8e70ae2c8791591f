"""Hears a command's events, and tells its metrics at the end; no command waits long, or fails, for these."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeVar

from smooth_orchestrator.errors import Mistake, PlanInvalid
from smooth_orchestrator.events import EventName
from smooth_orchestrator.logs import get_logger, hearing
from smooth_orchestrator.metrics.readings import Heard, Reading, readings
from smooth_orchestrator.report import Report

__all__ = ["Recorder", "recorder"]

_Where = TypeVar("_Where", Path, str)

# How long the end of a command may wait for a gateway, all in all: a server that is away, or a name that nobody knows.
_PATIENCE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Recorder:
    """What hears one command, and tells of it.

    Args:
        file: for node_exporter.
        gateway: the URL of a Pushgateway.
        heard: what the events have told so far.
    """

    file: Path | None
    gateway: str | None
    heard: Heard = field(default_factory=Heard)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Hear every event for the length of a context."""
        with hearing(self.heard.hear):
            yield

    def end(self, report: Report) -> None:
        """Tell how the command went. What cannot be told is one warning in the log, and changes nothing else."""
        told = readings(report, self.heard)
        if self.file is not None:
            _try("the file of metrics", _write, self.file, told)
        if self.gateway is not None:
            _try("the Pushgateway", _push, self.gateway, told)


def recorder(file: Path | None, gateway: str | None) -> Recorder | None:
    """Return what hears a command and tells its metrics, or None where nobody has asked for that.

    Args:
        file: for node_exporter.
        gateway: the URL of a Pushgateway.

    Raises:
        PlanInvalid: prometheus_client is not installed, or no file can be made there.
    """
    if file is None and gateway is None:
        return None
    if mistakes := [*_mistakes(file, gateway)]:
        raise PlanInvalid(mistakes)
    return Recorder(file and file.absolute(), gateway)


def _mistakes(file: Path | None, gateway: str | None) -> Iterator[Mistake]:
    option = "--pushgateway" if file is None else "--metrics-file"
    if find_spec("prometheus_client") is None:
        hint = "pip install 'smooth-orchestrator[prometheus]'"
        yield Mistake(option, "prometheus_client, which writes metrics, is not installed", hint)
    if file is not None and (file.is_dir() or not os.access(file.absolute().parent, os.W_OK | os.X_OK)):
        hint = "name a file in a directory that this user may write to"
        yield Mistake("--metrics-file", f"{file}: no file can be made there", hint)
    if gateway is not None and not gateway.removeprefix("http://").removeprefix("https://").strip("/"):
        yield Mistake("--pushgateway", "it names no server", "write it as http://pushgateway:9091")


def _write(file: Path, told: Sequence[Reading]) -> None:
    # prometheus_client brings a server with it, and takes a while to import.
    from smooth_orchestrator.metrics.exposition import write_file  # noqa: PLC0415 - see above

    write_file(file, told)


def _push(gateway: str, told: Sequence[Reading]) -> None:
    from smooth_orchestrator.metrics.exposition import push  # noqa: PLC0415 - as in `_write`

    push(gateway, told, timeout_s=_PATIENCE_S)


def _try(
    what: str, telling: Callable[[_Where, Sequence[Reading]], None], where: _Where, told: Sequence[Reading]
) -> None:
    """Do something for as long as may be waited for it, and say once why it was not done."""
    failure: list[BaseException] = [TimeoutError(f"not done within {_PATIENCE_S:g} s")]

    def attempt() -> None:
        try:
            telling(where, told)
            failure.clear()
        except Exception as error:  # noqa: BLE001 - who watches a command does not fail it
            failure[:] = [error]

    # The process does not wait for a thread like this one when it ends.
    thread = threading.Thread(target=attempt, name="metrics", daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    for error in tuple(failure):
        message = f"{what} did not get the metrics: {str(error) or type(error).__name__}"
        get_logger().warning(EventName.LOG_MESSAGE, logger="metrics", message=message)
