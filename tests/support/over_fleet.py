"""Have the program's commands work over three machines of a fleet, each in its own directory: pytest's `--fleet`."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from tests.support import warm
from tests.support.leases import until
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family

__all__ = ["copy_journal", "is_on", "journal_of", "lose", "machines_of", "serving", "turned_on"]

_COUNT: Final = 3
# Those of as many directories are kept, for the next command there.
_KEPT: Final = 3
_PATIENCE_S: Final = 60.0
_TABLE: Final = re.compile(r"\n*^\[fleet\]\n(?:\w+ = .*\n)*", re.MULTILINE)
_LINE: Final = re.compile(r'^journal = "[^"]*" # of the fleet\n', re.MULTILINE)
_HAS_NO_TABLES: Final = """
    SELECT to_regclass('smooth_fleet_machine') IS NULL OR to_regclass('procrastinate_workers') IS NULL
    FROM pg_sleep(0.05)
"""
_ENROLLED: Final = """
    SELECT split_part(m.name, ':', 2)::int
    FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id
    WHERE EXISTS (SELECT FROM unnest(m.queues) AS queue WHERE starts_with(queue, %s))
"""


@dataclass(frozen=True, slots=True)
class _Machines:
    """Three machines that serve one queue with the same files, in the same environment."""

    queue: str
    files: frozenset[tuple[str, int, int]]
    environment: Mapping[str, str]
    processes: tuple[psutil.Process, ...]

    def drain(self) -> None:
        """Have them take up nothing more; what they have at hand, also for a coordinator that was killed, they keep."""
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()

    def end(self) -> None:
        """Kill them, with all that they have started."""
        for process in self.processes:
            if process.is_running():
                kill_family(process.pid)


@dataclass
class _Everywhere:
    """What there is for all tests of one process."""

    server: PostgresServer
    directory: Path
    count: int = 0
    at_work: dict[Path, _Machines] = field(default_factory=dict)
    retired: dict[Path, list[_Machines]] = field(default_factory=dict)

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}_{self.count}"


_here: list[_Everywhere] = []


@contextmanager
def turned_on(server: PostgresServer, directory: Path) -> Iterator[None]:
    """Have every command be served by machines, until the block ends.

    Args:
        server: for the queue and the journals.
        directory: an empty one, for those of the machines.
    """
    server.create_database("queue")
    _here.append(_Everywhere(server, directory))
    try:
        yield
    finally:
        for plan in (*_here[0].at_work, *_here[0].retired):
            _end(plan)
        _here.clear()


def is_on() -> bool:
    """Return whether commands are served by machines."""
    return bool(_here)


@contextmanager
def serving(directory: Path) -> Iterator[None]:
    """End with the block what serves the plan in a directory, and forget what its journal holds."""
    try:
        yield
    finally:
        if _here:
            _end(directory)
            if (journal := journal_of(directory)) is not None:
                journal.server.drop_database(journal.name)


def machines_of(directory: Path, environment: Mapping[str, str]) -> tuple[psutil.Process, ...]:
    """Write into a plan that a fleet serves it, and return the machines that do; none without `--fleet`.

    Those that have other files than the plan's projects have by now, or another environment, take up nothing more.

    Args:
        directory: where the plan is.
        environment: the whole one of the command.
    """
    if not _here:
        return ()
    everywhere = _here[0]
    files = _files(directory)
    seen = {name: value for name, value in environment.items() if not name.startswith("PYTEST")}
    machines = everywhere.at_work.pop(directory, None)
    if machines is not None and (machines.files, machines.environment) != (files, seen):
        machines.drain()
        everywhere.retired.setdefault(directory, []).append(machines)
        machines = None
    queue = machines.queue if machines else everywhere.name("queue")
    _fit(directory, queue)
    machines = machines or _Machines(queue, files, seen, _started(directory, queue, environment))
    everywhere.at_work[directory] = machines
    for other in [*everywhere.at_work][:-_KEPT]:
        _end(other)
    return machines.processes


def lose(directory: Path) -> None:
    """Kill the machines that serve a plan, with all that they have started; the next command is served by others."""
    if _here:
        _end(directory)


def journal_of(directory: Path) -> PostgresDatabase | None:
    """Return the database of a plan's journal, where commands are served by machines and one has been there."""
    note = _note(directory)
    return PostgresDatabase(_here[0].server, note.read_text()) if _here and note.exists() else None


def copy_journal(directory: Path) -> None:
    """Give the plan in a directory, which is a copy of another, a copy of its journal."""
    if (journal := journal_of(directory)) is not None:
        name = _here[0].name("journal")
        journal.server.create_database(name, journal.name)
        _note(directory).write_text(name)


def _note(directory: Path) -> Path:
    """The file that names the journal: what goes with it is the same as without a fleet."""
    return directory / ".smooth" / "fleet_journal"


def _fit(directory: Path, queue: str) -> None:
    everywhere = _here[0]
    plan = directory / "deploy.toml"
    text = _TABLE.sub("\n", _LINE.sub("", plan.read_text()))
    if "journal = " not in text:
        if (journal := journal_of(directory)) is None:
            journal = PostgresDatabase(everywhere.server, everywhere.name("journal"))
            everywhere.server.create_database(journal.name)
            _note(directory).parent.mkdir(exist_ok=True)
            _note(directory).write_text(journal.name)
        text = text.replace("[deploy]\n", f'[deploy]\njournal = "{journal.dsn}" # of the fleet\n', 1)
    url = everywhere.server.dsn("queue")
    table = f'[fleet]\ntransport = "procrastinate"\nqueue_url = "{url}"\nqueue = "{queue}"\n'
    plan.write_text(f"{text.rstrip()}\n\n{table}")


def _started(directory: Path, queue: str, environment: Mapping[str, str]) -> tuple[psutil.Process, ...]:
    everywhere = _here[0]
    program = [warm.SCRIPT, "worker", "deploy.toml", "--concurrency", "2", "--log-format", "json"]
    logs, processes = [], []
    for number in range(_COUNT):
        own = everywhere.directory / queue / str(number)
        shutil.copytree(directory, own, ignore=shutil.ignore_patterns(".smooth", "*.sqlite3*"))
        logs.append(own / "machine.log")
        pid = warm.start(program, own, environment, imported=warm.FLEET, output=logs[-1])
        processes.append(psutil.Process(pid))

    def are_known() -> bool:
        for process, log in zip(processes, logs, strict=True):
            assert process.is_running(), log.read_text()
        with everywhere.server.connect("queue") as session:
            if session.execute(_HAS_NO_TABLES).fetchone() == (True,):
                return False
            known = {pid for (pid,) in session.execute(_ENROLLED, [f"{queue}:"])}
        return known == {process.pid for process in processes}

    until(are_known, patience_s=_PATIENCE_S)
    return tuple(processes)


def _files(directory: Path) -> frozenset[tuple[str, int, int]]:
    """Return what tells one state of a plan's projects from another."""
    projects = [each for each in directory.iterdir() if each.is_dir() and each.name != ".smooth"]
    found = [file for each in projects for file in each.rglob("*") if "__pycache__" not in file.parts]
    states = [(str(file.relative_to(directory)), file.stat()) for file in found if file.is_file()]
    return frozenset((name, state.st_mtime_ns, state.st_size) for name, state in states)


def _end(directory: Path) -> None:
    everywhere = _here[0]
    found = everywhere.retired.pop(directory, [])
    if directory in everywhere.at_work:
        found.append(everywhere.at_work.pop(directory))
    for machines in found:
        machines.end()
        shutil.rmtree(everywhere.directory / machines.queue)
