"""Machines of a fleet as processes, each in a directory of its own, that serve one queue."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

from tests.support.leases import until
from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family
from tests.support.runs import SCRIPT

__all__ = ["FleetOfMachines", "Machine", "fleet_of_machines"]

_ENROLLED: Final = """
    SELECT count(*) FROM smooth_fleet_machine m JOIN procrastinate_workers w ON w.id = m.worker_id
    WHERE split_part(m.name, ':', 2) = %s
"""


class Machine:
    """One `smooth-orchestrate worker` at work.

    Args:
        process: it.
        directory: its own, with the plan and the project.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", directory: Path) -> None:
        self.process = process
        self.directory = directory

    @property
    def name(self) -> str:
        """What the others call it."""
        return f"{socket.gethostname()}:{self.process.pid}"

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.directory / "machine.log").read_text()

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes that it has now."""
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def freeze(self, *, alone: bool = False) -> list[psutil.Process]:
        """Stop it where it is, and its workers unless it is to be alone in that; return what was stopped."""
        family = [psutil.Process(self.process.pid), *([] if alone else self.workers())]
        for process in family:
            process.suspend()
        return family

    def drain(self) -> int:
        """Have it end in order, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def lose(self) -> None:
        """Kill it, with all that it has started."""
        kill_family(self.process.pid)
        self.process.wait()


class FleetOfMachines:
    """Many databases, and the machines that migrate them.

    Args:
        many: the databases; the coordinator runs in their directory.
        queue: the database of the queue and of the journal.
        stack: ends what was started.
    """

    def __init__(self, many: ManyDatabases, queue: PostgresDatabase, stack: ExitStack) -> None:
        self.many = many
        self.queue = queue
        self._stack = stack
        self._count = 0

    def plan(self, *, deploy: str = "", fleet: str = "", journal: PostgresDatabase | None = None) -> None:
        """Write the plan of the coordinator.

        Args:
            deploy: further lines for `[deploy]`.
            fleet: further lines for `[fleet]`.
            journal: the journal's database; without it, the queue's.
        """
        self.many.plan()
        plan = self.many.directory / "deploy.toml"
        url = (journal or self.queue).dsn
        text = plan.read_text().replace("[deploy]\n", f'[deploy]\njournal = "{url}"\n{deploy}\n', 1)
        plan.write_text(f'{text}\n[fleet]\ntransport = "procrastinate"\nqueue_url = "{self.queue.dsn}"\n{fleet}\n')

    def start(
        self,
        *options: str,
        release: Mapping[str, str] | None = None,
        instead: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
    ) -> Machine:
        """Start another machine, and wait until it is known.

        Args:
            options: of `worker`.
            release: migrations that it has instead of the coordinator's, by file.
            instead: words that stand in its plan and its environment instead of the coordinator's, such as addresses.
            under: a command line that becomes the program, such as `ip netns exec NAME`.
        """
        self._count += 1
        directory = self.many.directory / f"machine_{self._count}"
        directory.mkdir()
        shutil.copy(self.many.directory / "deploy.toml", directory)
        shutil.copytree(self.many.directory / "project", directory / "project")
        for name, text in (release or {}).items():
            (directory / "project" / name).write_text(text)
        plan, environment = directory / "deploy.toml", self.many.environment
        for here, there in (instead or {}).items():
            plan.write_text(plan.read_text().replace(here, there))
            environment = {name: text.replace(here, there) for name, text in environment.items()}
        with (directory / "machine.log").open("wb") as log:
            process = subprocess.Popen(
                [*under, SCRIPT, "worker", "deploy.toml", *options],
                cwd=directory,
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        machine = Machine(process, directory)
        self._stack.callback(machine.lose)
        until(lambda: self.rows(_ENROLLED, str(process.pid)) == [(1,)] or process.poll() is not None)
        assert process.poll() is None, machine.log
        return machine

    def rows(self, query: str, *values: str) -> list[tuple[object, ...]]:
        """Return what a query finds in the queue's database; nothing as long as its tables are not there."""
        with self.queue.connect() as session:
            if session.execute("SELECT to_regclass('procrastinate_workers') IS NULL").fetchone() == (True,):
                return []
            return session.execute(query, values).fetchall()


@contextmanager
def fleet_of_machines(
    directory: Path,
    servers: Sequence[PostgresServer],
    count: int,
    release: dict[str, str],
    queue_on: PostgresServer | None = None,
) -> Iterator[FleetOfMachines]:
    """Create databases, and a queue on a server of its own or beside the first; everything ends with the block."""
    with (
        many_databases(directory, servers, count, release) as many,
        temporary_database(queue_on or servers[0]) as queue,
        ExitStack() as stack,
    ):
        fleet = FleetOfMachines(many, queue, stack)
        fleet.plan()
        yield fleet
