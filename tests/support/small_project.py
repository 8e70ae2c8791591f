"""Small Django projects, written by a test for what it is about."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import warm
from tests.support.processes import kill_family

__all__ = ["DRIVER", "PSYCOPG2_ALONE", "Result", "SmallProject", "migration"]

DRIVER = "SMALL_DRIVER"
"""The environment variable that says which driver of PostgreSQL the projects have, if not both."""

PSYCOPG2_ALONE: Mapping[str, str] = {
    "psycopg.py": "raise ImportError('this project has psycopg2')\n",
}
"""A project's file that hides psycopg, which Django prefers, and leaves it psycopg2."""

# None of these processes lives for long enough to have garbage, and to look for it takes four tenths of their time.
_MANAGE = """\
import atexit
import gc
import os
import sys

gc.disable()
atexit.register(gc.freeze)

from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "small_settings"
execute_from_command_line(sys.argv)
"""
_SETTINGS = """\
import json
import os

SECRET_KEY = "for tests alone"
INSTALLED_APPS = {apps!r}
DATABASES = json.loads(os.environ["SMALL_DATABASES"])
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
{settings}
"""
_MIGRATION = """\
import os
import signal
import threading

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

{functions}

class Migration(migrations.Migration):
    atomic = {atomic}
    initial = {initial}
    dependencies = {dependencies}
    operations = [{operations}]
"""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def migration(*operations: str, after: Sequence[tuple[str, str]] = (), atomic: bool = True, functions: str = "") -> str:
    """Return the source of a migration.

    Args:
        operations: the source of each.
        after: what it depends on, as (app, name).
        atomic: its attribute of that name.
        functions: source that stands before its class.
    """
    return _MIGRATION.format(
        functions=functions,
        atomic=atomic,
        initial=not after,
        dependencies=list(after),
        operations="".join(f"\n        {operation}," for operation in operations),
    )


class SmallProject:
    """A project in a directory of its own.

    Args:
        directory: an empty one.
        databases: its `settings.DATABASES`.
        migrations: sources by `app.name`; each app named there is installed.
        installed: further apps.
        settings: further lines of its settings module.
    """

    def __init__(
        self,
        directory: Path,
        databases: Mapping[str, Mapping[str, Any]],
        migrations: Mapping[str, str],
        *,
        installed: Sequence[str] = (),
        settings: str = "",
    ) -> None:
        self._directory = directory
        self._databases = databases
        labels = dict.fromkeys(key.partition(".")[0] for key in migrations)
        self.write("manage.py", _MANAGE)
        apps = [*installed, "smooth_migrations", *labels]
        self.write("small_settings.py", _SETTINGS.format(apps=apps, settings=settings))
        for label in labels:
            self.write(f"{label}/__init__.py", "")
            # An app without models hears no pre_migrate and no post_migrate.
            self.write(f"{label}/models.py", "")
            self.write(f"{label}/migrations/__init__.py", "")
        for key, source in migrations.items():
            self.write_migration(key, source)
        if os.environ.get(DRIVER) == "psycopg2":
            for path, text in PSYCOPG2_ALONE.items():
                self.write(path, text)

    def write(self, path: str, text: str) -> None:
        """Write one of its files."""
        file = self._directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def write_migration(self, key: str, source: str) -> None:
        """Write the migration `app.name`, over the one of that name."""
        label, _, name = key.partition(".")
        self.write(f"{label}/migrations/{name}.py", source)

    @contextmanager
    def start(self, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
        """Start `manage.py` with these arguments; it ends before the block does, or with a failure of the block.

        What it writes is buffered as it is for users, whatever this process was told.
        """
        with subprocess.Popen(
            [sys.executable, "-B", "manage.py", *arguments],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            except BaseException:
                # What it waits for may be the block's own.
                kill_family(process.pid)
                raise

    def run(self, *arguments: str) -> Result:
        """Run `manage.py` with these arguments to its end, however that is."""
        if warm.can_run(self._directory, self._environment):
            program = ["manage.py", *arguments]
            return Result(*warm.run(program, self._directory, self._environment, imported=warm.DJANGO))
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate()
        return Result(process.returncode, stdout, stderr)

    @property
    def _environment(self) -> dict[str, str]:
        return warm.environment_here() | {"SMALL_DATABASES": json.dumps(self._databases)}

    def succeed(self, *arguments: str) -> str:
        """Run `manage.py` with these arguments and return what it printed.

        Raises:
            RuntimeError: it failed.
        """
        result = self.run(*arguments)
        if result.returncode:
            raise RuntimeError(f"manage.py {' '.join(arguments)} failed:\n{result.stdout}\n{result.stderr}")
        return result.stdout
