"""Debian's Prometheus and Pushgateway, as servers of a test's own, and what they have been told."""

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.support.debian import installed
from tests.support.processes import kill_family

__all__ = ["Server", "check_metrics", "check_rules", "running_prometheus", "running_pushgateway"]

_PATIENCE_S: Final = 30.0
_POLL_S: Final = 0.1


class Server:
    """One that answers on a port of its own.

    Args:
        port: which.
    """

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"

    def get(self, path: str) -> str:
        """Return what it answers."""
        with urlopen(f"http://{self.address}{path}", timeout=_PATIENCE_S) as answer:
            text: str = answer.read().decode()
        return text

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Return what Prometheus makes of an expression now."""
        answer = json.loads(self.get(f"/api/v1/query?{urlencode({'query': expression})}"))
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Wait until an expression has a result, and return it."""
        deadline_s = time.monotonic() + _PATIENCE_S
        while not (result := self.ask(expression)):
            assert time.monotonic() < deadline_s, f"nothing came of {expression}"
            time.sleep(_POLL_S)
        return result


@contextmanager
def running_pushgateway() -> Iterator[Server]:
    """Run a Pushgateway for the length of a context.

    Raises:
        Unavailable: it is not installed.
    """
    program = installed("prometheus-pushgateway", "prometheus-pushgateway")
    with _running([program.path], Path("/")) as server:
        yield server


@contextmanager
def running_prometheus(directory: Path, targets: list[str]) -> Iterator[Server]:
    """Run a Prometheus that scrapes every second; as `running_pushgateway` otherwise.

    Args:
        directory: for its file and its data.
        targets: addresses of gateways.
    """
    program = installed("prometheus", "prometheus")
    scraped = {"job_name": "gateway", "honor_labels": True, "static_configs": [{"targets": targets}]}
    # YAML holds JSON.
    file = directory / "prometheus.yaml"
    file.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": [scraped]}))
    options = [f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}"]
    with _running([program.path, *options], directory) as server:
        yield server


def check_metrics(text: str) -> str:
    """Return what promtool finds wrong with metrics.

    Raises:
        Unavailable: it is not installed.
    """
    promtool = installed("promtool", "prometheus").path
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def check_rules(*words: str | Path) -> str:
    """Run promtool over files of rules, which must succeed, and return what it says; as `check_metrics` otherwise."""
    promtool = installed("promtool", "prometheus").path
    done = subprocess.run([promtool, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def _running(words: list[str | Path], directory: Path) -> Iterator[Server]:
    # The servers say nowhere which port they were given, so it is chosen here.
    with socket.create_server(("127.0.0.1", 0)) as free:
        server = Server(free.getsockname()[1])
    words = [*words, f"--web.listen-address={server.address}", "--log.level=error"]
    with subprocess.Popen(words, cwd=directory, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_until_ready(server, process)
            yield server
        finally:
            kill_family(process.pid)


def _wait_until_ready(server: Server, process: "subprocess.Popen[bytes]") -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            server.get("/-/ready")
        except (URLError, ConnectionError):
            assert process.poll() is None, "the server has ended by itself"
            assert time.monotonic() < deadline_s, "the server does not answer"
            time.sleep(_POLL_S)
        else:
            return
