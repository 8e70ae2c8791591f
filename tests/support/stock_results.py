"""What Django's own `migrate` makes of a history: the measure of what ours makes."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

from tests.support.histories import SAME_ORDER, Database, History, SqliteDatabase, Vendor, execute, vendor_of
from tests.support.postgres_database import temporary_database
from tests.support.postgres_home import program
from tests.support.postgres_server import PostgresServer

__all__ = ["OlderRelease", "StockResults"]

_STAND_BACK = Path(__file__).with_name("stand_back.py")


@dataclass(frozen=True, slots=True)
class OlderRelease:
    """Where an older release left its databases, to be copied.

    Args:
        template: the name of a database on each of the two servers.
        file: a SQLite file.
    """

    template: str
    file: Path


class StockResults:
    """What Django's own commands make of a history; each made when first asked for, by one process for all.

    Args:
        history: the application.
        servers: this process's servers; on the first one the stock commands work.
        directory: shared by the processes of one test run.
    """

    def __init__(self, history: History, servers: Sequence[PostgresServer], directory: Path) -> None:
        self._history = history
        self._servers = servers
        self._directory = directory

    @cached_property
    def newest(self) -> Mapping[Vendor, str]:
        """Dumps after `migrate` on an empty database."""
        return _dumps(self._once("newest", self._make_newest))

    @cached_property
    def older(self) -> OlderRelease:
        """The databases of an older release."""
        made = self._once("older", self._make_older)
        template = f"older_{self._history.label}"
        # On every server from the same text: an expression may be spelt in another way once dumped and restored.
        for server in self._servers:
            server.create_database(template)
            psql = [str(program("psql")), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", server.dsn(template)]
            subprocess.run([*psql, "--file", str(made / "postgresql.sql")], check=True, capture_output=True)
        return OlderRelease(template, made / "older.sqlite3")

    @cached_property
    def updated(self) -> Mapping[Vendor, str]:
        """Dumps after `migrate` on the databases of the older release."""
        return _dumps(self._once("updated", self._make_updated))

    def _make_newest(self, directory: Path) -> None:
        with temporary_database(self._servers[0]) as postgres:
            self._migrate(postgres, directory)
        self._migrate(SqliteDatabase(directory / "newest.sqlite3"), directory)

    def _make_older(self, directory: Path) -> None:
        newest = json.dumps(dict(self._history.newest))
        with temporary_database(self._servers[0]) as postgres:
            for database in (postgres, SqliteDatabase(directory / "older.sqlite3")):
                self._run(["-P", str(_STAND_BACK), newest], database)
                execute(database, self._history.rows)
            pg_dump = [str(program("pg_dump")), "--file", str(directory / "postgresql.sql"), postgres.dsn]
            subprocess.run(pg_dump, check=True, capture_output=True)

    def _make_updated(self, directory: Path) -> None:
        older = self.older
        with temporary_database(self._servers[0], older.template) as postgres:
            self._migrate(postgres, directory)
        local = SqliteDatabase(directory / "updated.sqlite3")
        shutil.copyfile(older.file, local.path)
        self._migrate(local, directory)

    def _migrate(self, database: Database, directory: Path) -> None:
        self._run(["manage.py", "migrate", "--no-input", "--verbosity=0"], database)
        (directory / f"{vendor_of(database)}.dump").write_text(self._history.dump(database))

    def _run(self, arguments: Sequence[str], database: Database) -> None:
        # Some of these migrations write to the alias "default" whatever they are run for, so that is what it is here.
        site = {"SITE_DATABASES": json.dumps({"default": database.django}), **SAME_ORDER}
        done = subprocess.run(
            [sys.executable, *arguments],
            check=False,
            cwd=self._history.project,
            env=os.environ | site | {"DJANGO_SETTINGS_MODULE": self._history.settings},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed for {self._history.name}:\n{done.stdout}")

    def _once(self, name: str, make: Callable[[Path], None]) -> Path:
        """Return the directory that `make` filled, in this process or in another one, whose end is waited for."""
        made = self._directory / f"{self._history.label}-{name}"
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                draft = made.with_suffix(f".{uuid4().hex}")
                draft.mkdir()
                make(draft)
                draft.rename(made)
        return made


def _dumps(directory: Path) -> Mapping[Vendor, str]:
    return {Vendor(path.stem): path.read_text() for path in directory.glob("*.dump")}
