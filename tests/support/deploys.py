"""Three databases of a small fleet, and the installed program run over them as a pipeline would."""

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.support import over_fleet
from tests.support.dump import Blank, dump
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family
from tests.support.runs import SCRIPT, Outcome, Running, decisions_in, run_in, run_words, running_in
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

__all__ = ["GATE_WAITS", "LAST", "Fleet", "copy_of", "fleet_on", "small_fleet"]

LAST = "shards:shard_1"
# Opens when there is a file `go` in the plan's directory.
GATE_WAITS = 'gate = ["sh", "-c", "until [ -e go ]; do sleep 0.05; done"]'
_PATIENCE_S = 40.0


@dataclass
class Fleet:
    """Databases `primary` and `kiosk` in the first phase, and `shards:shard_1` on another server in the second.

    The kiosk is a file of SQLite, which is nothing for a fleet: with `--fleet` it is a database beside `primary`.

    Args:
        directory: of the plan; the project is beside it in `project`.
        first: the database of `primary`.
        last: the database of `shards:shard_1`.
        settings: the project's settings module.
        variable: the environment variable that holds its databases.
        third: the database of `kiosk`, where that is no file.
    """

    directory: Path
    first: PostgresDatabase
    last: PostgresDatabase
    settings: str
    variable: str
    third: PostgresDatabase | None = None
    databases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(self.kiosk)}
        kiosk = self.third.django if self.third else file
        self.databases = {"default": self.first.django, "kiosk": kiosk, "shard_1": self.last.django}

    @property
    def environment(self) -> dict[str, str]:
        """What the program needs in its environment to know the databases."""
        return {self.variable: json.dumps(self.databases)}

    @property
    def kiosk(self) -> Path:
        """The file of `kiosk`."""
        return self.directory / "kiosk.sqlite3"

    @property
    def on_servers(self) -> list[PostgresDatabase]:
        """The databases that are no files."""
        return [each for each in (self.first, self.third, self.last) if each is not None]

    def plan(
        self, *, deploy: str = "expand_contract = false", canary: str = "", shards: str = "", servers: str = ""
    ) -> None:
        """Write the plan, with further lines for `[deploy]`, for each phase, and for the databases on servers."""
        text = f"""\
version = 1
[deploy]
name = "small"
{deploy}
[projects.one]
path = "project"
settings = "{self.settings}"
env = {{ {self.variable} = "${{{self.variable}}}" }}
[databases.primary]
project = "one"
alias = "default"
{servers}
[databases.kiosk]
project = "one"
alias = "kiosk"
[databases.shards]
project = "one"
aliases = "shard_*"
{servers}
[[phases]]
name = "canary"
databases = ["primary", "kiosk"]
{canary}
[[phases]]
name = "fleet"
databases = ["shards:*"]
{shards}
"""
        (self.directory / "deploy.toml").write_text(text)

    @contextmanager
    def running(self, *options: str, command: str = "deploy") -> Iterator[Running]:
        """Start a command; what is left of it ends with the block."""
        with running_in(self.directory, self.environment, *options, command=command) as run:
            yield run

    def deploy(self, *options: str) -> Outcome:
        """Run a deploy to its end."""
        return self.run("deploy", *options)

    def run(self, command: str, *options: str, failpoint: str | None = None, under: Sequence[str] = ()) -> Outcome:
        """Run any command of the program over the plan to its end.

        Args:
            command: of the program, such as `recover`.
            *options: further ones.
            failpoint: the crash point at which the process that reaches it kills itself.
            under: a command line that runs the program, such as `prlimit --fsize=9999`.
        """
        return run_in(self.directory, self.environment, command, *options, failpoint=failpoint, under=under)

    def told(self, command: str) -> str:
        """Run a command for a person to its end, and return what it prints."""
        environment = os.environ | self.environment
        over_fleet.machines_of(self.directory, environment)
        words = [SCRIPT, command, "deploy.toml"]
        return subprocess.run(
            words, cwd=self.directory, env=environment, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    def migrate(self, alias: str, *options: str) -> None:
        """Bring one alias up to date with Django's own command, and further options of its."""
        environment = os.environ | {self.variable: json.dumps(self.databases), "DJANGO_SETTINGS_MODULE": self.settings}
        command = [sys.executable, "-m", "django", "migrate", "--database", alias, "--verbosity", "0", *options]
        subprocess.run(command, cwd=self.directory / "project", env=environment, check=True)

    def run_printed(self, outcome: Outcome) -> Outcome:
        """Run the command that a report gives an operator, as it stands there, and assert that it settles the run."""
        (command,) = outcome.report["settle_with"]
        program, *arguments = shlex.split(command)
        assert program == "smooth-orchestrate"
        settled = run_words(self.directory, self.environment, *arguments)
        assert settled.exit_code == 0, settled.stderr
        return settled

    def prepared(self) -> list[str]:
        """Return the gids of the transactions that stand prepared in the fleet's databases."""
        return [gid for each in self.on_servers for gid in each.server.prepared(each.name)]

    def dumps(self, *, sequences: bool = True, applied: bool = True) -> dict[str, str]:
        """Write every database down.

        The positions of PostgreSQL's sequences are left out: the server never takes those back with a transaction.
        Those of SQLite come back with one, and may be left out where committed steps are reversed.

        Args:
            sequences: whether SQLite's are written.
            applied: whether it is written when each migration was applied, and by which number; without it, two
                deploys can be compared.
        """
        blank = None if applied else {"django_migrations": ("id", "applied")}
        return {
            "primary": dump(self.first.dsn, sequences=False, blank=blank),
            "kiosk": self._dump_of_kiosk(sequences=sequences, blank=blank),
            LAST: dump(self.last.dsn, sequences=False, blank=blank),
        }

    def _dump_of_kiosk(self, *, sequences: bool, blank: Blank | None) -> str:
        if self.third is not None:
            return dump(self.third.dsn, sequences=False, blank=blank)
        with closing(sqlite3.connect(self.kiosk)) as connection:
            # The first who may write takes back what a killed process left half done; a dump may not.
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return dump(self.kiosk, sequences=sequences, blank=blank)

    def decisions(self) -> list[str]:
        """Return the decisions that stand in the journal, in order, of every run."""
        return decisions_in(self.directory)

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work in the plan's directory, whoever their parent is."""
        return [
            process for process in psutil.process_iter(["cwd"]) if _is_within(self.directory, process.info.get("cwd"))
        ]

    def kill(self, command: str, point: str) -> None:
        """Run a command that is killed at a failpoint, or its worker, and wait until nothing is left of it.

        The machines of a fleet are lost with it, for they take a coordinator for gone after long silence alone.
        """
        killed = self.run(command, failpoint=point)
        assert killed.exit_code == -9 or killed.named("worker.failed"), f"{point} was not reached"
        over_fleet.lose(self.directory)
        for process in self.processes():
            process.wait(timeout=_PATIENCE_S)
        self.wait_until_alone()

    def execute(self, statements: str) -> None:
        """Run statements in every database."""
        if self.third is None:
            with closing(sqlite3.connect(self.kiosk)) as connection:
                connection.executescript(statements)
        for database in self.on_servers:
            with database.connect() as session:
                session.execute(statements.encode())

    def wait_until_alone(self) -> None:
        """Wait until no session is left in any database.

        A server ends a session a moment after its client has gone.

        Raises:
            AssertionError: one is still there.
        """
        for database in self.on_servers:
            deadline_s = time.monotonic() + _PATIENCE_S
            with psycopg.connect(database.server.dsn("postgres"), autocommit=True) as watcher:
                while database.server.sessions(database.name):
                    assert time.monotonic() < deadline_s, f"a session is left in {database.name}"
                    watcher.execute("SELECT pg_sleep(0.02)")


@contextmanager
def fleet_on(
    directory: Path, first: PostgresServer, last: PostgresServer, *, settings: str, variable: str
) -> Iterator[Fleet]:
    """Create the three databases, empty; they are dropped with the block."""
    with ExitStack() as stack:
        servers = (first, last, first) if over_fleet.is_on() else (first, last)
        databases = [stack.enter_context(temporary_database(server)) for server in servers]
        stack.enter_context(over_fleet.serving(directory))
        yield Fleet(directory, databases[0], databases[1], settings, variable, databases[2] if databases[2:] else None)


@contextmanager
def small_fleet(
    directory: Path,
    first: PostgresServer,
    last: PostgresServer,
    next_release: Mapping[str, str],
    *,
    installed: Sequence[str] = (),
) -> Iterator[Fleet]:
    """Create the databases at `demo.0001_item` with a row in each, and write the migrations that come next.

    Args:
        directory: for the plan and the project.
        first: the server of `primary`.
        last: the server of `shards:shard_1`.
        next_release: sources by `app.name`.
        installed: further apps of the project.
    """
    with fleet_on(directory, first, last, settings="small_settings", variable="SMALL_DATABASES") as fleet:
        project = SmallProject(directory / "project", fleet.databases, {"demo.0001_item": ITEM}, installed=installed)
        fleet.plan()
        assert fleet.deploy().exit_code == 0
        fleet.execute("INSERT INTO demo_item (name) VALUES ('kite')")
        for key, source in next_release.items():
            project.write_migration(key, source)
        yield fleet


def assert_rolled_back_at_a_gate(fleet: Fleet, *, commit: str) -> None:
    """Deploy with a gate in front of the last phase that fails: the others, committed or not, are as they were.

    Args:
        fleet: which.
        commit: the plan's setting of that name.
    """
    fleet.plan(deploy=f'expand_contract = false\ncommit = "{commit}"', shards='gate = ["false"]')
    before = fleet.dumps(sequences=False)

    outcome = fleet.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (1, "rolled_back"), outcome.stderr
    assert fleet.dumps(sequences=False) == before


@contextmanager
def copy_of(fleet: Fleet, directory: Path, *, journal: bool = False) -> Iterator[Fleet]:
    """Copy a fleet's plan, project and databases; all but the files goes with the block.

    No session may be connected to the databases.

    Args:
        fleet: which.
        directory: for the copy.
        journal: whether what it has done is known to the copy.
    """
    left_out = None if journal else shutil.ignore_patterns(".smooth")
    shutil.copytree(fleet.directory, directory, ignore=left_out, dirs_exist_ok=True)
    if journal:
        over_fleet.copy_journal(directory)
    with ExitStack() as stack:
        first, last, *third = [
            stack.enter_context(temporary_database(database.server, database.name))
            for database in (fleet.first, fleet.last, fleet.third)
            if database is not None
        ]
        stack.enter_context(over_fleet.serving(directory))
        copied = Fleet(directory, first, last, fleet.settings, fleet.variable, third[0] if third else None)
        try:
            yield copied
        finally:
            for process in copied.processes():
                kill_family(process.pid)


def _is_within(directory: Path, path: str | None) -> bool:
    return path is not None and Path(path).is_relative_to(directory)
