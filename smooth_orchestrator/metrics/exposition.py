"""Metrics written to a file that is replaced whole, and pushed to a gateway.

What a command does not tell stays as it was told last, both ways: a Pushgateway keeps it in its group, and a file is
read before it is replaced. So the time of the last success outlives a failure.
"""

import base64
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from prometheus_client import Metric as Family
from prometheus_client import exposition
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from smooth_orchestrator.metrics.readings import Reading
from smooth_orchestrator.metrics.table import LABELS, Metric, help_of, labels_of
from smooth_orchestrator.whole_file import place_of, write_whole

__all__ = ["push", "write_file"]

_JOB: Final = "smooth_orchestrator"
# node_exporter has another account than whoever deploys, whose umask may be strict.
_FOR_ALL: Final = 0o644
_LOCK_PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.02


class _Readings(Collector):
    """What prometheus_client asks for metrics."""

    def __init__(self, told: Iterable[Reading]) -> None:
        self._told = [*told]

    def collect(self) -> Iterator[Family]:
        """Yield each metric of which something is told, in the order of the table."""
        for metric in Metric:
            of_this = [each for each in self._told if each.metric is metric]
            family = Family(metric, help_of(metric), "gauge")
            for each in of_this:
                family.add_sample(metric, dict(zip(labels_of(metric), each.labels, strict=True)), each.value)
            if of_this:
                yield family


def write_file(path: Path, told: Sequence[Reading]) -> None:
    """Replace a file by one that tells this too. Two commands that do so at once do not lose each other's.

    Args:
        path: whose name ends with `.prom`, if node_exporter is to read it. A symbolic link stays one, and a file that
            was there keeps its permissions.
        told: what this command tells.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    place = place_of(path)
    with _alone(place.parent):
        text = exposition.generate_latest(_Readings([*_kept(place, told), *told])).decode()
        write_whole(place, text, mode=_FOR_ALL)


def push(url: str, told: Sequence[Reading], *, timeout_s: float) -> None:
    """Push to a gateway, in a group of this deploy and command.

    Args:
        url: the gateway's; a user and a password in it are sent as HTTP's basic authentication has it.
        told: what this command tells.
        timeout_s: for each step of the connection.

    Raises:
        OSError: the gateway did not take it.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    given = [(unquote(parts.username), unquote(parts.password or ""))] if parts.username else []

    def handler(
        url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
    ) -> Callable[[], None]:
        for user, password in given:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers = [*headers, ("Authorization", f"Basic {token}")]
        return exposition.default_handler(url, method, timeout, headers, data)

    group = dict(zip(LABELS, told[0].labels, strict=False))
    gateway = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    # Adds: what is not told now stays.
    exposition.pushadd_to_gateway(gateway, _JOB, _Readings(told), group, timeout_s, handler)


def _kept(path: Path, told: Sequence[Reading]) -> Iterator[Reading]:
    """Yield what a file tells that is not told anew."""
    anew = {(each.metric, each.labels[: len(LABELS)]) for each in told}
    try:
        families = [*text_string_to_metric_families(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        # It is not there yet, or is none of ours: the new one is whole again.
        return
    known = {str(metric): metric for metric in Metric}
    for sample in (sample for family in families for sample in family.samples if sample.name in known):
        metric = known[sample.name]
        labels = tuple(sample.labels.get(name, "") for name in labels_of(metric))
        if (metric, labels[: len(LABELS)]) not in anew:
            yield Reading(metric, labels, sample.value)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other commands from the files of a directory; one that takes too long is not waited for."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        deadline_s = time.monotonic() + _LOCK_PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_S)
        yield
    finally:
        os.close(descriptor)
