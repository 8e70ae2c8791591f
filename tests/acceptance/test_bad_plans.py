import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.log_lines import log_lines
from tests.support.processes import kill_family
from tests.support.sampling import one_in
from tests.unit.bad_plans import CASES, BadPlan, make
from tests.unit.bad_plans.base import HEAD, PRIMARY, PROJECT

SCRIPT = Path(sys.executable).with_name("smooth-orchestrate")
WITHOUT_DJANGO = [case for case in CASES if not case.needs_django]
# The same aliases as in `SETTINGS` of the bad plans, with two that are one database.
_SETTINGS = """\
SECRET_KEY = "of no use"
INSTALLED_APPS = []
DATABASES = {{
    alias: {{
        "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "{port}", "NAME": name, "USER": "shop"
    }}
    for alias, name in (
        ("default", "a"), ("shard_1", "b"), ("shard_2", "c"), ("reports", "d"), ("reports_too", "d")
    )
}}
"""


class Listener:
    """A server that takes connections, counts them and says nothing; it stands in for every database and journal."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server
        self.port: int = server.getsockname()[1]
        self.count = 0
        self.visited = threading.Event()

    def serve(self) -> None:
        """Count until the socket is shut."""
        while True:
            try:
                visitor, _ = self._server.accept()
            except OSError:
                return
            visitor.close()
            self.count += 1
            self.visited.set()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        listener = Listener(server)
        thread = threading.Thread(target=listener.serve)
        thread.start()
        yield listener
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def make_here(case: BadPlan, directory: Path, listener: Listener) -> Path:
    """Write a case whose databases, and its journal where it names none, are at the listener."""
    path = make(case, directory)
    (directory / "shop/shop/settings.py").write_text(_SETTINGS.format(port=listener.port))
    own = isinstance(case.content, str) and HEAD in case.content and "journal" not in case.content
    if own and not any("(at line" in line for line in case.expected):
        path.write_text(path.read_text().replace(HEAD, HEAD + _journal(listener)))
    return path


def _journal(listener: Listener) -> str:
    return f'journal = "postgresql://shop@127.0.0.1:{listener.port}/journal"\n'


def start(*words: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([SCRIPT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    with start(*words) as process:
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            kill_family(process.pid)
    log_lines(stderr)  # fails for a line that is no event of the published schema
    return subprocess.CompletedProcess(words, process.returncode, stdout, stderr)


def expected(case: BadPlan, path: Path) -> list[str]:
    return [line.replace("{plan}", str(path)) for line in case.expected]


@pytest.mark.parametrize("case", one_in(4, CASES))
def test_the_command_names_every_mistake_of_a_bad_plan_and_connects_to_nothing(
    case: BadPlan, tmp_path: Path, listener: Listener
) -> None:
    path = make_here(case, tmp_path, listener)
    done = run(path, "--json")
    assert listener.count == 0
    report = json.loads(done.stdout)
    assert (done.returncode, report["exit_code"], report["outcome"]) == (2, 2, "invalid")
    assert [f"{error['place']}: {error['message']}" for error in report["errors"]] == expected(case, path)
    assert all(error.keys() == {"place", "message", "hint"} for error in report["errors"])
    assert case.needs_django or done.stderr == ""


@pytest.mark.parametrize("command", ["deploy", "plan", "check", "status", "runs", "report"])
def test_every_command_says_in_words_what_is_wrong_with_a_plan(
    command: str, tmp_path: Path, listener: Listener
) -> None:
    case = max(WITHOUT_DJANGO, key=lambda case: len(case.expected))
    path = make_here(case, tmp_path, listener)
    done = run(command, path)
    assert (done.returncode, listener.count) == (2, 0)
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stdout.splitlines()
    shown = [f"{place}: {message.strip()}" for place, message in pairwise(lines)]
    assert [line for line in expected(case, path) if line not in shown] == []


@pytest.mark.long
@pytest.mark.parametrize("place", ["databases", "journal"])
def test_a_good_plan_is_one_that_connects(place: str, tmp_path: Path, listener: Listener) -> None:
    content = HEAD + (_journal(listener) if place == "journal" else "") + PROJECT + PRIMARY
    path = make_here(BadPlan("none", b"", ()), tmp_path, listener)
    path.write_text(content)
    with start(path, "--json") as process:
        try:
            assert listener.visited.wait(60)
        finally:
            kill_family(process.pid)
            process.communicate()
