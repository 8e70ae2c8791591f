"""`smooth-orchestrate deploy` over several databases, beside a shell loop of `manage.py migrate`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measuring import Run, timed
from benchmarks.site import Site, State, recorded
from tests.support.histories import Database

__all__ = ["ManyDatabases"]

_PROGRAM = Path(sys.executable).with_name("smooth-orchestrate")

_PLAN = """\
version = 1

[deploy]
name = "benchmark"
expand_contract = false      # the same work as the peer does: nothing is held back for later
max_lock_hold = "15min"      # how slow the machine is must not end a run

[projects.site]
path = {path}
settings = {settings}

[databases.fleet]
project = "site"
aliases = "*"
"""

_LOOP = 'for alias in "$@"; do "$0" manage.py migrate --no-input --database="$alias" || exit; done'


class ManyDatabases:
    """All databases of one project, in one phase, with the plan's defaults for how many at a time.

    Args:
        site: the project.
        databases: by alias.
        state: where each run begins.
        directory: for the plan and the journal.
    """

    def __init__(self, site: Site, databases: Mapping[str, Database], state: State, directory: Path) -> None:
        self._site = site
        self._databases = databases
        self._state = state
        self._directory = directory

    @property
    def name(self) -> str:
        """Such as `deploy/8-databases/from-zero`."""
        return f"deploy/{len(self._databases)}-databases/{self._state}"

    def prepare(self) -> None:
        """Put the databases back and begin a new journal, which would else tell of runs that they know nothing of."""
        for database in self._databases.values():
            self._site.put(database, self._state)
        shutil.rmtree(self._directory / ".smooth", ignore_errors=True)
        # A JSON string is a TOML string too.
        plan = _PLAN.format(path=json.dumps(str(self._site.project)), settings=json.dumps(self._site.settings))
        (self._directory / "deploy.toml").write_text(plan)

    def run_ours(self) -> Run:
        """Run the installed program."""
        return self._run([str(_PROGRAM), "deploy", "deploy.toml"], self._directory)

    def longest_lock_s(self) -> float:
        """Return for how long the last run held strong locks, from the first to the commit, as its report says."""
        done = subprocess.run(
            [str(_PROGRAM), "report", "deploy.toml", "--json"],
            cwd=self._directory,
            env=os.environ | self._site.environment(self._databases),
            capture_output=True,
            text=True,
            check=True,
        )
        return max(float(entry["lock_hold_ms"]) for entry in json.loads(done.stdout)["databases"]) / 1000

    def run_peer(self) -> Run:
        """Run `migrate` for one alias after the other."""
        return self._run(["sh", "-c", _LOOP, sys.executable, *self._databases], self._site.project)

    def _run(self, argv: list[str], cwd: Path) -> Run:
        return Run(timed(argv, cwd=cwd, env=self._site.environment(self._databases)), recorded(self._databases))
