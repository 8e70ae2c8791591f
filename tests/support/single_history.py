"""A long history on one database alone, moved by the commands of its project."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.histories import SAME_ORDER, Database, History, execute
from tests.support.small_migrations import run_python
from tests.support.small_project import migration

__all__ = ["Ended", "SingleHistory"]

# Django moves the applications in the order of their labels.
_LAST = "zz_last"
_STAND_BACK = Path(__file__).with_name("stand_back.py")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, what it printed, and how long it took."""

    returncode: int
    printed: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class SingleHistory:
    """One application's history on one database.

    Args:
        history: the application.
        database: empty at first.
        directory: for an app of this test's own, which `plant_a_failure` makes.
    """

    history: History
    database: Database
    directory: Path

    def manage(self, *arguments: str) -> Ended:
        """Run `manage.py` with these arguments."""
        return self._run(["-B", "manage.py", *arguments])

    def succeed(self, *arguments: str) -> Ended:
        """Run `manage.py` with these arguments.

        Raises:
            RuntimeError: it failed.
        """
        return _succeeded(self.manage(*arguments))

    def begin_older(self) -> None:
        """Bring the empty database to where an older release left it, with rows."""
        _succeeded(self._run(["-P", "-B", str(_STAND_BACK), json.dumps(dict(self.history.newest))]))
        execute(self.database, self.history.rows)

    def plant_a_failure(self, after: str) -> None:
        """Make the project have one migration more, after `app.name` of its last one, that fails."""
        app, _, name = after.partition(".")
        migrations = self.directory / _LAST / "migrations"
        migrations.mkdir(parents=True)
        for module in (migrations.parent, migrations):
            (module / "__init__.py").touch()
        fails = migration(
            "migrations.RunPython(forwards, nothing)",
            after=[(app, name)],
            functions=run_python("raise ValueError('at the last')"),
        )
        (migrations / "0001_fails.py").write_text(fails)

    def dump(self) -> str:
        """Return all that the database holds and a ROLLBACK would bring back."""
        return self.history.dump(self.database, sequences=False)

    def _run(self, arguments: list[str]) -> Ended:
        site = {
            "DJANGO_SETTINGS_MODULE": self.history.settings,
            "SITE_DATABASES": json.dumps({"default": self.database.django}),
            "SITE_FURTHER_APPS": " ".join(["smooth_migrations", *(path.name for path in self.directory.glob(_LAST))]),
            "PYTHONPATH": str(self.directory),
            **SAME_ORDER,
        }
        started_s = time.monotonic()
        done = subprocess.run(
            [sys.executable, *arguments],
            check=False,
            cwd=self.history.project,
            env=os.environ | site,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Ended(done.returncode, done.stdout, time.monotonic() - started_s)


def _succeeded(ended: Ended) -> Ended:
    if ended.returncode:
        raise RuntimeError(ended.printed)
    return ended
