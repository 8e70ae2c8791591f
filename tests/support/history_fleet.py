"""Databases of one application on several servers, and a deploy over them by the installed program."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.histories import SAME_ORDER, Database, History, SqliteDatabase
from tests.support.log_lines import log_lines
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.stock_results import OlderRelease

__all__ = ["Deployed", "Fleet", "fleet"]

_PROGRAM = Path(sys.executable).with_name("smooth-orchestrate")
_DEPLOY_TIMEOUT_S = 400
_GONE_TIMEOUT_S = 10

_PLAN = """\
version = 1

[deploy]
name = "histories"
expand_contract = {expands}
# How long a busy machine takes is not what is tested here.
max_lock_hold = "15min"

[projects.site]
path = {path}
settings = {settings}

[projects.site.env]
SITE_DATABASES = "${{SITE_DATABASES}}"
{same_order}

[databases.first]
project = "site"
alias = "default"

[databases.second]
project = "site"
alias = "second"

[databases.third]
project = "site"
alias = "third"

[databases.local]
project = "site"
alias = "local"
expand_contract = false

[[phases]]
name = "canary"
databases = ["first", "second"]
parallel = 2

[[phases]]
name = "fleet"
databases = ["third", "local"]
parallel = 2

[finalise]
bake_time = "0s"
"""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What a deploy left for its caller.

    Args:
        exit_code: of the program.
        report: standard output.
        log: standard error, an object a line.
    """

    exit_code: int
    report: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]

    @property
    def databases(self) -> Mapping[str, Mapping[str, Any]]:
        """The report's databases by name."""
        return {database["database"]: database for database in self.report["databases"]}

    def events(self, name: str) -> list[Mapping[str, Any]]:
        """Return the log's events of one name."""
        return [event for event in self.log if event["event"] == name]


@dataclass(frozen=True, slots=True)
class Fleet:
    """Three PostgreSQL databases on two servers and a SQLite file.

    Args:
        history: the application.
        databases: by their names in the plan.
        directory: for the plan and what the program keeps beside it.
        expands: whether what the older release could not live with is held back on the servers.
    """

    history: History
    databases: Mapping[str, Database]
    directory: Path
    expands: bool = False

    def dumps(self) -> dict[str, str]:
        """Return what every database holds, without what differs between any two runs."""
        return {name: self.history.dump(database) for name, database in self.databases.items()}

    def dumps_without_sequences(self) -> dict[str, str]:
        """Return the same without PostgreSQL's sequences, which never go back, not even in a ROLLBACK."""
        return {
            name: self.history.dump(database, sequences=isinstance(database, SqliteDatabase))
            for name, database in self.databases.items()
        }

    def deploy(self, run_id: str) -> Deployed:
        """Deploy to every database."""
        return self.run("deploy", run_id)

    def run(self, command: str, run_id: str) -> Deployed:
        """Run a command of the installed program, with nothing of this process's environment but the path."""
        plan = self.directory / "deploy.toml"
        # A JSON string is a TOML string too.
        plan.write_text(
            _PLAN.format(
                expands=json.dumps(self.expands),
                path=json.dumps(str(self.history.project)),
                settings=json.dumps(self.history.settings),
                same_order="\n".join(f"{name} = {json.dumps(value)}" for name, value in SAME_ORDER.items()),
            )
        )
        aliases = {"default" if name == "first" else name: at.django for name, at in self.databases.items()}
        arguments = [_PROGRAM, command, plan, "--json", "--log-format", "json", "--run-id", run_id]
        done = subprocess.run(
            [str(argument) for argument in arguments],
            check=False,
            cwd=self.directory,
            env={
                "HOME": str(self.directory),
                "PATH": os.environ["PATH"],
                "SITE_DATABASES": json.dumps(aliases),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_DEPLOY_TIMEOUT_S,
        )
        log = log_lines(done.stderr)
        assert done.stdout, f"exit code {done.returncode} without a report:\n{done.stderr}"
        return Deployed(done.returncode, json.loads(done.stdout), log)

    def left_behind(self) -> list[str]:
        """Name what a run left on the servers: prepared transactions, client sessions that do not go away."""
        postgres = [at for at in self.databases.values() if isinstance(at, PostgresDatabase)]
        prepared = [f"prepared transaction {gid}" for at in postgres for gid in at.server.prepared(at.name)]
        deadline_s = time.monotonic() + _GONE_TIMEOUT_S
        # A server notices a moment later than its client that the connection is closed.
        while (
            sessions := [at.name for at in postgres if at.server.sessions(at.name)]
        ) and time.monotonic() < deadline_s:
            pass
        return prepared + [f"a session in {name}" for name in sessions]


@contextmanager
def fleet(
    history: History, servers: Sequence[PostgresServer], directory: Path, older: OlderRelease | None = None
) -> Iterator[Fleet]:
    """Create the databases, empty or as an older release left them; drop them with the block."""
    local = directory / "local.sqlite3"
    if older is not None:
        shutil.copyfile(older.file, local)
    template = older.template if older else None
    with ExitStack() as stack:
        places = {"first": servers[0], "second": servers[1], "third": servers[0]}
        databases: dict[str, Database] = {
            name: stack.enter_context(temporary_database(server, template)) for name, server in places.items()
        }
        yield Fleet(history, databases | {"local": SqliteDatabase(local)}, directory)
