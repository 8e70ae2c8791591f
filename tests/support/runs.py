"""The installed program as a process, and what one run of it leaves behind."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from tests.support import over_fleet, warm
from tests.support.log_lines import log_lines
from tests.support.postgres_database import PostgresDatabase
from tests.support.processes import kill_family, words_of
from tests.support.warm import SCRIPT

__all__ = ["SCRIPT", "Outcome", "Running", "decisions_in", "run_in", "run_words", "running_in", "still_running"]

_PATIENCE_S = 40.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of the program left behind; its whole log is checked against the published schema."""

    exit_code: int
    stdout: str
    stderr: str
    log: list[dict[str, Any]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # A program that was killed may have been writing its last line.
        whole = self.stderr if self.exit_code != -signal.SIGKILL else _whole_lines(self.stderr)
        object.__setattr__(self, "log", log_lines(whole))

    @property
    def report(self) -> dict[str, Any]:
        """The machine report."""
        report: dict[str, Any] = json.loads(self.stdout)
        return report

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return the log's lines of one event."""
        return [line for line in self.log if line["event"] == event]

    @property
    def outcomes(self) -> dict[str, str]:
        """What became of each database."""
        return {entry["database"]: entry["outcome"] for entry in self.report["databases"]}


class Running:
    """A run of the program that is still going on.

    Args:
        process: it.
        machines: those of a fleet that work for it.
    """

    def __init__(self, process: "subprocess.Popen[str]", machines: Sequence[psutil.Process] = ()) -> None:
        self.process = process
        self._machines = machines
        self.started_s = time.monotonic()
        self.seen: list[dict[str, Any]] = []
        self._lines: list[str] = []

    def wait_for(self, event: str, **keys: object) -> dict[str, Any]:
        """Read the log until a line of this event with these keys comes, and return it."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            self._lines.append(text)
            (line,) = log_lines(text)
            self.seen.append(line)
            if line["event"] == event and all(line.get(key) == value for key, value in keys.items()):
                return dict(line)
        raise AssertionError(f"the run ended without {event} {keys}:\n{''.join(self._lines)}")

    def wait_for_lines(self, count: int) -> None:
        """Read this many further lines of the log, or as many as there are."""
        assert self.process.stderr is not None
        for text in islice(self.process.stderr, count):
            self._lines.append(text)

    def wait_until(self, moment_s: float) -> None:
        """Wait until so much time has passed since the program was started, or until it ends."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=max(0.0, self.started_s + moment_s - time.monotonic()))

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes there are now; none when the program has ended."""
        with suppress(psutil.NoSuchProcess):
            return [process for process in self.family() if "smooth_migrations.worker" in words_of(process)]
        return []

    def worker_pid(self) -> int:
        """Return the process id of the worker that started last."""
        return int([line["pid"] for line in self.seen if line["event"] == "worker.started"][-1])

    def family(self) -> list[psutil.Process]:
        """Return the processes that the program has started, and those that the machines of its fleet have."""
        heads = [psutil.Process(self.process.pid), *self._machines]
        return [process for head in heads for process in head.children(recursive=True)]

    def drain(self) -> None:
        """Read to the end what a program that was killed has written."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stderr.read()
        self.process.stdout.read()

    def finish(self) -> Outcome:
        """Read everything to its end."""
        assert self.process.stderr is not None
        stdout: list[str] = []
        # Beside each other, lest one pipe fill up; and through the same reader that has read the beginning.
        reading = threading.Thread(
            target=lambda: stdout.append(self.process.stdout.read() if self.process.stdout else "")
        )
        reading.start()
        self._lines.append(self.process.stderr.read())
        reading.join()
        return Outcome(self.process.wait(), stdout[0], "".join(self._lines))


@contextmanager
def running_in(
    directory: Path,
    environment: Mapping[str, str],
    *options: str,
    command: str = "deploy",
    own_group: bool = False,
    under: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
) -> Iterator[Running]:
    """Start a command over the plan in a directory; what is left of it ends with the block.

    Args:
        directory: where the plan is.
        environment: beside this process's.
        *options: further ones.
        command: of the program.
        own_group: whether its processes are a group of their own.
        under: a command line that becomes the program, such as `setsid`.
        stdin: a descriptor, such as that of a terminal.
    """
    full = os.environ | environment | {"PYTHONDONTWRITEBYTECODE": "1"}
    machines = over_fleet.machines_of(directory, full)
    process = subprocess.Popen(
        [*under, SCRIPT, command, "deploy.toml", "--json", "--log-format", "json", *options],
        cwd=directory,
        env=full,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0 if own_group else None,
    )
    with process:
        try:
            yield Running(process, machines)
        finally:
            kill_family(process.pid)


def run_in(
    directory: Path,
    environment: Mapping[str, str],
    command: str,
    *options: str,
    failpoint: str | None = None,
    under: Sequence[str] = (),
) -> Outcome:
    """Run any command over the plan in a directory to its end.

    Args:
        directory: where the plan is.
        environment: beside this process's.
        command: of the program, such as `recover`.
        *options: further ones.
        failpoint: the crash point at which the process that reaches it kills itself.
        under: a command line that runs the program, such as `prlimit --fsize=9999`.
    """
    return run_words(directory, environment, command, "deploy.toml", *options, failpoint=failpoint, under=under)


def run_words(
    directory: Path,
    environment: Mapping[str, str],
    *words: str,
    failpoint: str | None = None,
    under: Sequence[str] = (),
) -> Outcome:
    """Run the program with a whole command line to its end; see `run_in`."""
    program = [SCRIPT, *words, "--json", "--log-format", "json"]
    full = os.environ | environment | {"PYTHONDONTWRITEBYTECODE": "1"}
    if failpoint:
        full["SMOOTH_FAILPOINT"] = failpoint
    machines = over_fleet.machines_of(directory, full)
    if not under and warm.can_run(directory, full):
        imported = warm.FLEET if machines else warm.ORCHESTRATOR
        return Outcome(*warm.run(program, directory, full, imported=imported))
    done = subprocess.run(
        [*under, *program],
        cwd=directory,
        env=full,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def decisions_in(directory: Path) -> list[str]:
    """Return the decisions that stand in the journal beside a plan, in order, of every run."""
    if (of_fleet := over_fleet.journal_of(directory)) is not None:
        return _decisions_on(of_fleet)
    journal = directory / ".smooth/journal.db"
    if not journal.exists():
        return []
    with closing(sqlite3.connect(journal)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'journal'").fetchone():
            return []
        rows = connection.execute("SELECT data FROM journal WHERE kind = 'decision' ORDER BY seq").fetchall()
    return [json.loads(data)["decision"] for (data,) in rows]


def _decisions_on(database: PostgresDatabase) -> list[str]:
    with database.connect() as session:
        if session.execute("SELECT to_regclass('smooth_journal') IS NULL").fetchone() == (True,):
            return []
        rows = session.execute(
            "SELECT data->>'decision' FROM smooth_journal WHERE kind = 'decision' ORDER BY seq"
        ).fetchall()
    return [decision for (decision,) in rows]


def still_running(family: list[psutil.Process]) -> list[psutil.Process]:
    """Wait until processes have ended and return those that have not; one that nobody has buried has ended."""
    _gone, alive = psutil.wait_procs(family, timeout=_PATIENCE_S)
    return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def _whole_lines(text: str) -> str:
    return text[: text.rfind("\n") + 1]
