"""`smooth-orchestrate deploy` over several databases, beside what one would type: `manage.py migrate` under `xargs`."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks.measuring import Run, timed
from benchmarks.processes import Watched, watched
from benchmarks.site import Site, State, recorded
from tests.support.histories import Database
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_home import program

__all__ = ["PROGRAM", "ManyDatabases", "schema_of"]

PROGRAM: Final = Path(sys.executable).with_name("smooth-orchestrate")

_PLAN = """\
version = 1

[deploy]
name = "benchmark"
expand_contract = false      # the same work as the peer does: nothing is held back for later
max_lock_hold = "15min"      # how slow the machine is must not end a run
{deploy}

[projects.site]
path = {path}
settings = {settings}

[databases.fleet]
project = "site"
aliases = "*"

[[phases]]
name = "all"
databases = ["fleet:*"]
{phase}
"""

# As many at a time as there are cores. Each database is the process's `default`: the data migrations of most
# applications write there, whatever `--database` says.
_PEER = """printf '%s\\0' "$@" |
xargs -0 -P "$CORES" -I{} env SITE_DATABASES={} "$PYTHON" manage.py migrate --no-input --verbosity 0 """


class ManyDatabases:
    """All databases of one project, in one phase, with the plan's defaults for how many at a time.

    Args:
        site: the project.
        databases: by alias.
        state: where each run begins.
        directory: for the plan and the journal.
        sampled: how many of the databases the peer works on; its time is multiplied for the others.
        deploy: further lines of the plan's table of that name.
        phase: likewise.
    """

    def __init__(
        self,
        site: Site,
        databases: Mapping[str, Database],
        state: State,
        directory: Path,
        *,
        sampled: int | None = None,
        deploy: str = "",
        phase: str = "",
    ) -> None:
        self.site = site
        self.databases = databases
        self.state = state
        self.directory = directory
        self._sampled = {**dict(islice(databases.items(), sampled))}
        self._lines = {"deploy": deploy, "phase": phase}
        self._is_made = False

    @property
    def name(self) -> str:
        """Such as `deploy/8-databases/from-zero`."""
        return f"deploy/{len(self.databases)}-databases/{self.state}"

    def prepare(self) -> None:
        """Put the databases back and begin a new journal, which would else tell of runs that they know nothing of."""
        # What has nothing pending has nothing afterwards, but for the product's own tables.
        if not (self._is_made and self.state is State.NOTHING_PENDING):
            for database in self.databases.values():
                self.site.put(database, self.state)
        self._is_made = True
        shutil.rmtree(self.directory / ".smooth", ignore_errors=True)
        # A JSON string is a TOML string too.
        plan = _PLAN.format(
            path=json.dumps(str(self.site.project)), settings=json.dumps(self.site.settings), **self._lines
        )
        (self.directory / "deploy.toml").write_text(plan)

    def run_ours(self) -> Run:
        """Run the installed program."""
        done = self.run("deploy")
        return Run(done.duration_s, self.left(), memory_mb=done.peak_mb)

    def run(self, command: str, *options: str, exit_code: int = 0) -> Watched:
        """Run a command of the installed program."""
        argv = [str(PROGRAM), command, "deploy.toml", "--log-format", "json", *options]
        env = self.site.environment(self.databases)
        return watched(argv, cwd=self.directory, env=env, exit_code=exit_code)

    def longest_lock_s(self) -> float:
        """Return for how long the last run held strong locks, from the first to the commit, as its report says."""
        done = subprocess.run(
            [str(PROGRAM), "report", "deploy.toml", "--json"],
            cwd=self.directory,
            env=os.environ | self.site.environment(self.databases),
            capture_output=True,
            text=True,
            check=True,
        )
        return max(float(entry["lock_hold_ms"]) for entry in json.loads(done.stdout)["databases"]) / 1000

    def run_peer(self) -> Run:
        """Run `migrate` for each database, as many at a time as there are cores."""
        entries: list[Any] = [{"default": database.django} for database in self._sampled.values()]
        environment = {
            **self.site.environment({}),
            "DJANGO_SETTINGS_MODULE": self.site.settings,
            "PYTHON": sys.executable,
            "CORES": str(os.cpu_count() or 1),
        }
        argv = ["sh", "-c", _PEER, "sh", *map(json.dumps, entries)]
        duration_s = timed(argv, cwd=self.site.project, env=environment)
        return Run(duration_s * len(self.databases) / len(self._sampled), self.left())

    def left(self) -> dict[str, frozenset[str]]:
        """Return what the databases that both sides move are like: their migrations, and their schema."""
        found = recorded(self._sampled)
        return {
            alias: found[alias] | ({schema_of(database)} if isinstance(database, PostgresDatabase) else set())
            for alias, database in self._sampled.items()
        }


def schema_of(database: PostgresDatabase) -> str:
    """Return a digest of what pg_dump writes of a database's schema, without the product's own tables."""
    argv = [str(program("pg_dump")), "--schema-only", "--no-owner", "--exclude-table=smooth_migrations_*", database.dsn]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    # Since PostgreSQL 18.1 a random word guards what psql reads.
    lines = (line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
