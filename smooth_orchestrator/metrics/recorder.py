"""Hears a command's events, and tells its metrics at the end; no command waits long, or fails, for these."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from smooth_orchestrator.correspondents import PATIENCE_S, Correspondent
from smooth_orchestrator.errors import Mistake, PlanInvalid
from smooth_orchestrator.events import EventName
from smooth_orchestrator.leisure import import_at_leisure, run_beside
from smooth_orchestrator.logs import get_logger, hearing
from smooth_orchestrator.metrics.readings import Heard, Reading, readings
from smooth_orchestrator.report import Report
from smooth_orchestrator.whole_file import place_of

__all__ = ["Recorder", "recorder"]


@dataclass(frozen=True, slots=True)
class Recorder:
    """What hears one command, and tells of it.

    Args:
        file: for node_exporter.
        gateway: the URL of a Pushgateway.
        correspondent: who is at that URL.
        heard: what the events have told so far.
    """

    file: Path | None
    gateway: str | None
    correspondent: Correspondent | None
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
            _try("the file of metrics", _wait_for, partial(_write, self.file, told))
        if self.gateway is not None and (there := self.correspondent) is not None:
            _try("the Pushgateway", there.tell, partial(_push, self.gateway, told), lambda: there.error)


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
    correspondent = None if gateway is None else Correspondent("metrics", gateway)
    # prometheus_client brings a server with it, and takes a while to import: not for a gateway that is away.
    after = correspondent.wait if correspondent is not None and file is None else None
    import_at_leisure("smooth_orchestrator.metrics.exposition", after)
    return Recorder(file and file.absolute(), gateway, correspondent)


def _mistakes(file: Path | None, gateway: str | None) -> Iterator[Mistake]:
    option = "--pushgateway" if file is None else "--metrics-file"
    if find_spec("prometheus_client") is None:
        hint = "pip install 'smooth-orchestrator[prometheus]'"
        yield Mistake(option, "prometheus_client, which writes metrics, is not installed", hint)
    if file is not None and not _can_be_made(file):
        hint = "name a file in a directory that this user may write to"
        yield Mistake("--metrics-file", f"{file}: no file can be made there", hint)
    if gateway is not None and not gateway.removeprefix("http://").removeprefix("https://").strip("/"):
        yield Mistake("--pushgateway", "it names no server", "write it as http://pushgateway:9091")


def _can_be_made(file: Path) -> bool:
    try:
        place = place_of(file)
    except OSError:  # the working directory was removed
        return False
    return os.access(place.parent, os.W_OK | os.X_OK) and (place.is_file() or not place.exists())


def _write(file: Path, told: Sequence[Reading]) -> None:
    from smooth_orchestrator.metrics.exposition import write_file  # noqa: PLC0415 - see `recorder`

    write_file(file, told)


def _push(gateway: str, told: Sequence[Reading]) -> None:
    from smooth_orchestrator.metrics.exposition import push  # noqa: PLC0415 - see `recorder`

    push(gateway, told, timeout_s=PATIENCE_S)


def _wait_for(telling: Callable[[], object]) -> bool:
    thread = run_beside("metrics", telling)
    thread.join(PATIENCE_S)
    return not thread.is_alive()


def _try(
    what: str,
    tell: Callable[[Callable[[], object]], bool],
    telling: Callable[[], object],
    why_not: Callable[[], Exception | None] = lambda: None,
) -> None:
    """Do something for as long as `tell` waits for it, and say once why it was not done."""
    failures: list[Exception] = []

    def attempt() -> None:
        try:
            telling()
        except Exception as error:  # noqa: BLE001 - who watches a command does not fail it
            failures.append(error)

    is_done = tell(attempt)
    for error in tuple(failures) if is_done else (why_not() or TimeoutError("no answer in time"),):
        message = f"{what} did not get the metrics: {str(error) or type(error).__name__}"
        get_logger().warning(EventName.LOG_MESSAGE, logger="metrics", message=message)
