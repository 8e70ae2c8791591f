"""A place to run generated histories in: a long-lived Django process and databases that are copied."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.dump import dump
from tests.support.histories import SAME_ORDER, Database, SqliteDatabase, Vendor, execute
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import PostgresServer

__all__ = ["Bench", "Ended"]

_ROOT = Path(__file__).parents[3]
_NAMES = ("failing", "stock", "ours")
# Nothing here has to outlive its machine.
_FAST = {"OPTIONS": {"init_command": "PRAGMA synchronous=OFF"}}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Args:
        output: what it printed.
        error: the type of what it raised, or None.
        message: of that.
        returncode: of that.
        traceback: of that.
    """

    output: str
    error: str | None = None
    message: str = ""
    returncode: int = 0
    traceback: str = ""

    @property
    def is_refusal(self) -> bool:
        """Whether it said beforehand that there would be no way back."""
        return self.returncode == 3 and "Refused: these could not be rolled back" in self.message


class Bench:
    """Databases of one kind and a process that migrates them.

    Args:
        vendor: which kind.
        server: where they are; None for SQLite files.
        directory: an empty one.
    """

    def __init__(self, vendor: Vendor, server: PostgresServer | None, directory: Path) -> None:
        self.vendor = vendor
        self._server = server
        self._directory = directory
        self._stack = ExitStack()
        self._databases: list[Database] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        apps = self._directory / "apps"
        apps.mkdir()
        self._databases = [self._stack.enter_context(self._new(name)) for name in _NAMES]
        self._process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-B", "-m", "tests.support.generated.server", str(apps)],
                cwd=_ROOT,
                env=os.environ | SAME_ORDER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()  # the process ends with its input

    def prepare(self, applied: Mapping[str, str]) -> tuple[Sequence[Database], Ended]:
        """Return three databases that hold what these migrations make by stock's command, and nothing from before."""
        first, *others = self._databases
        self._wipe(first)
        ended = self.run("migrate", first, applied) if applied else Ended("")
        for other in others:
            self._wipe(other)
            if isinstance(first, SqliteDatabase) and isinstance(other, SqliteDatabase):
                shutil.copyfile(first.path, other.path)
            elif applied:
                # Some hundred milliseconds less than CREATE DATABASE ... TEMPLATE.
                self.run("migrate", other, applied)
        return self._databases, ended

    @contextmanager
    def _new(self, name: str) -> Iterator[Database]:
        if self._server is None:
            yield SqliteDatabase(self._directory / f"{name}.sqlite3")
            return
        with temporary_database(self._server) as database:
            yield database

    def _wipe(self, database: Database) -> None:
        if isinstance(database, SqliteDatabase):
            database.path.write_bytes(b"")
        else:
            execute(database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def run(self, command: str, database: Database, migrations: Mapping[str, str]) -> Ended:
        """Run a command of Django's with these migrations, to its end."""
        if self._process is None or self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process exists inside its `with` block alone")
        settings = database.django | (_FAST if self.vendor is Vendor.SQLITE else {})
        request = {"command": command, "database": settings, "migrations": migrations}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process has ended")
        answer: dict[str, Any] = json.loads(line)
        error = answer["error"]
        if error is None:
            return Ended(answer["output"])
        return Ended(answer["output"], error["type"], error["message"], error["returncode"], error["traceback"])

    def dump(self, database: Database, *, sequences: bool = False, times: bool = True) -> str:
        """Return what a database holds, through another connection.

        Args:
            database: which.
            sequences: whether SQLite's sequences belong to it; PostgreSQL's are no part of a transaction.
            times: whether it matters when a migration was applied.
        """
        return dump(database.dsn, ignore_applied_times=not times, sequences=sequences and self.vendor is Vendor.SQLITE)
