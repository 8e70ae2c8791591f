"""`manage.py apply_migrations` beside `manage.py migrate`, on one database."""

import sys

from benchmarks.measuring import Run, timed
from benchmarks.site import Site, State, recorded
from tests.support.histories import Database, vendor_of

__all__ = ["OneDatabase"]


class OneDatabase:
    """Both commands on the alias `default`.

    The peer runs without the product among its apps, so that what installing it costs is counted too.

    Args:
        site: the project.
        database: on which to run.
        state: where each run begins.
    """

    def __init__(self, site: Site, database: Database, state: State) -> None:
        self._site = site
        self._databases = {"default": database}
        self._state = state

    @property
    def name(self) -> str:
        """Such as `apply/sqlite/from-zero`."""
        return f"apply/{vendor_of(self._databases['default'])}/{self._state}"

    def prepare(self) -> None:
        """Put the database back."""
        self._site.put(self._databases["default"], self._state)

    def run_ours(self) -> Run:
        """Run `apply_migrations`."""
        return self._run("apply_migrations", adopted=True)

    def run_peer(self) -> Run:
        """Run `migrate`."""
        return self._run("migrate", adopted=False)

    def _run(self, command: str, *, adopted: bool) -> Run:
        environment = self._site.environment(self._databases, adopted=adopted)
        argv = [sys.executable, "manage.py", command, "--no-input"]
        return Run(timed(argv, cwd=self._site.project, env=environment), recorded(self._databases))
