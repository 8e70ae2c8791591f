"""An application that others wrote, and databases that are put back to a state of it again and again."""

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from benchmarks.measuring import timed
from demo.fleet import Place
from tests.support.histories import SAME_ORDER, Database, SqliteDatabase
from tests.support.mariadb_database import MariadbDatabase
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer

__all__ = ["APPLICATIONS", "Site", "State", "recorded"]

APPLICATIONS: Mapping[str, Mapping[str, int]] = {
    "helpdesk": {"helpdesk": 5},
    "pretix": {"pretixbase": 5},
    "wagtail": {"wagtailusers": 5},
}
"""What can be migrated, and the five newest migrations of it on which no other one depends."""

_TESTS = Path(__file__).parents[1] / "tests"
_STAND_BACK = _TESTS / "support" / "stand_back.py"
_ADOPTED = "adopted_settings"
# A variable of Linux has at most 128 KiB (execve(2), MAX_ARG_STRLEN).
_LONGEST = 100_000


class State(StrEnum):
    """Where a database stands before a run."""

    NOTHING_PENDING = "nothing-pending"
    FIVE_PENDING = "five-pending"
    FROM_ZERO = "from-zero"


class Site:
    """One application's project, as it came and with the product installed in it.

    Args:
        application: one of `APPLICATIONS`.
        directory: for this object's files.
    """

    def __init__(self, application: str, directory: Path) -> None:
        self._application = application
        self._directory = directory
        self._templates: dict[tuple[PostgresServer | None, State], Database] = {}
        # Both sides run what is compiled, as pip installs it, whatever is said where this is measured.
        self._compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory / "bytecode")}
        adopted = f"from {self.settings} import *\n\nINSTALLED_APPS = [*INSTALLED_APPS, 'smooth_migrations']\n"
        (directory / f"{_ADOPTED}.py").write_text(adopted)

    @property
    def project(self) -> Path:
        """The directory with manage.py."""
        return _TESTS / "projects" / f"{self._application}_site"

    @property
    def settings(self) -> str:
        """The settings without the product."""
        return f"{self._application}_site.settings"

    def environment(self, databases: Mapping[str, Database], *, adopted: bool = False) -> dict[str, str]:
        """Return what the project reads from its environment.

        Args:
            databases: by alias.
            adopted: whether the product is one of its installed apps.
        """
        aliases = {alias: database.django for alias, database in databases.items()}
        files = {"SITE_FILES": str(self._directory)}
        environment = {"SITE_DATABASES": self._told(json.dumps(aliases)), **files, **SAME_ORDER, **self._compiled}
        if adopted:
            environment |= {"PYTHONPATH": str(self._directory), "DJANGO_SETTINGS_MODULE": _ADOPTED}
        return environment

    def _told(self, databases: str) -> str:
        if len(databases) < _LONGEST:
            return databases
        path = self._directory / f"databases-{hashlib.sha256(databases.encode()).hexdigest()[:16]}.json"
        path.write_text(databases)
        return str(path)

    def put(self, database: Database, state: State) -> None:
        """Make a database anew, as it stands in a state."""
        if isinstance(database, SqliteDatabase):
            database.path.unlink(missing_ok=True)
            template = self._template(None, state)
            if isinstance(template, SqliteDatabase):
                shutil.copyfile(template.path, database.path)
        elif isinstance(database, MariadbDatabase):
            raise TypeError("MariaDB is not measured")
        else:
            database.server.drop_database(database.name)
            template = self._template(database.server, state)
            database.server.create_database(
                database.name, template.name if isinstance(template, PostgresDatabase) else None
            )

    def _template(self, server: PostgresServer | None, state: State) -> Database | None:
        if state is State.FROM_ZERO:
            return None
        if (server, state) not in self._templates:
            self._templates[server, state] = self._make_template(server, state)
        return self._templates[server, state]

    def _make_template(self, server: PostgresServer | None, state: State) -> Database:
        template: Database
        if server is None:
            template = SqliteDatabase(self._directory / f"template-{state}.sqlite3")
        else:
            server.create_database(f"template-{state}")
            template = PostgresDatabase(server, f"template-{state}")
        left_out = APPLICATIONS[self._application] if state is State.FIVE_PENDING else {}
        settings = {"DJANGO_SETTINGS_MODULE": self.settings}
        timed(
            [sys.executable, "-P", str(_STAND_BACK), json.dumps(left_out)],
            cwd=self.project,
            env=self.environment({"default": template}) | settings,
        )
        return template


def recorded(databases: Mapping[str, Database]) -> dict[str, frozenset[str]]:
    """Return the migrations that are recorded in each database."""
    return {
        alias: frozenset(Place(alias, alias, database.dsn, database.django).migrations())
        for alias, database in databases.items()
    }
