"""The sample shop as a pipeline deploys it: its plan, its secrets, and the scripts that are run beside it."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.postgres_database import PostgresDatabase
from tests.support.runs import SCRIPT
from tests.support.shop import check_out

__all__ = ["ROLLED_OUT", "Done", "Shop"]

ROLLED_OUT: Final = "rolled-out"
"""The file that a roll-out leaves beside the plan."""

_IN_THE_WAY: Final = "CREATE TABLE catalog_product (id int)"


@dataclass(frozen=True, slots=True)
class Shop:
    """The plan for pipelines with the shop beside it, at no release yet, and a journal on a server.

    Args:
        directory: of the plan.
        databases: by alias.
        journal: the journal's.
    """

    directory: Path
    databases: Mapping[str, PostgresDatabase]
    journal: PostgresDatabase

    @property
    def environment(self) -> dict[str, str]:
        """What a pipeline's secrets give."""
        databases = {alias: each.django for alias, each in self.databases.items()}
        return {"SMOOTH_JOURNAL": self.journal.dsn, "SHOP_DATABASES": json.dumps(databases)}

    def release(self, number: int) -> None:
        """Check a release out."""
        check_out(number, self.directory / "shop")

    def put_in_the_way(self) -> None:
        """Make something in the last database that the first release cannot go over."""
        with self.databases["shard_1"].connect() as session:
            session.execute(_IN_THE_WAY.encode())

    def take_away(self) -> None:
        """Remove it."""
        with self.databases["shard_1"].connect() as session:
            session.execute("DROP TABLE catalog_product")

    def migrations(self) -> list[set[str]]:
        """Return what each database has recorded, through connections of their own."""
        return [_recorded(database) for database in self.databases.values()]

    def held_back(self) -> list[bool]:
        """Return of each database whether it has something that is held back."""
        return [_holds_back(database) for database in self.databases.values()]

    def is_rolled_out(self) -> bool:
        """Return whether the code was rolled out since the last time, and forget it."""
        note = self.directory / ROLLED_OUT
        found = note.exists()
        note.unlink(missing_ok=True)
        return found

    def run(self, script: str, shell: Sequence[str], further: Mapping[str, str] | None = None) -> "Done":
        """Run a script as a pipeline does, in the plan's directory."""
        path = os.pathsep.join([str(Path(SCRIPT).parent), os.environ["PATH"]])
        file = self.directory / "step.sh"
        file.write_text(script)
        done = subprocess.run(
            [*shell, file],
            cwd=self.directory,
            env=os.environ | self.environment | {"PATH": path} | dict(further or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True, slots=True)
class Done:
    """How a script has ended, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


def _recorded(database: PostgresDatabase) -> set[str]:
    with database.connect() as session:
        if session.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
            return set()
        return {name for (name,) in session.execute("SELECT app || '.' || name FROM django_migrations")}


def _holds_back(database: PostgresDatabase) -> bool:
    with database.connect() as session:
        if session.execute("SELECT to_regclass('smooth_migrations_contract')").fetchone() == (None,):
            return False
        return session.execute("SELECT FROM smooth_migrations_contract").fetchone() is not None
