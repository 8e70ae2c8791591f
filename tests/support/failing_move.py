"""A call that fails, after or within something that an undo has to bring back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.histories import Database, Vendor, execute
from tests.support.small_project import SmallProject

__all__ = ["ROWS", "FailingMove"]

ROWS = """
    INSERT INTO demo_crate (label) VALUES ('box');
    INSERT INTO demo_item (name, code, size, crate_id) SELECT 'tea', '01', NULL, id FROM demo_crate;
    INSERT INTO demo_item (name, code, size, crate_id) VALUES ('jam', '02', 7, NULL);
    INSERT INTO demo_item (name, code, size, crate_id) VALUES ('jam', '03', NULL, NULL);
"""
"""What is in the tables of demo.0001_start (`tests.support.failing_moves`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingMove:
    """A call of `apply_migrations` that fails.

    Args:
        name: what it is about.
        cases: the numbers of the failure cases that it is a proof of (`tests.support.failure_cases`).
        migrations: of the project, by `app.name`.
        applied: arguments of `migrate` before; None leaves the database without anything.
        rows: SQL run after that.
        arguments: of the call.
        files: further files of the project.
        later: files that are there only when the call runs.
        installed: further apps.
        settings: source at the end of the project's settings.
        refused: whether it is an error before anything runs where it cannot be held in a transaction.
        outside: whether a migration has `atomic = False`, which PostgreSQL cannot hold either.
        returncode: of the call, where it is not refused.
        says: lines that it prints, where it is not refused.
        stays: what is told of what stays on MariaDB, where it is documented that it does.
        not_yet: why it is not undone on MariaDB.
    """

    name: str
    cases: tuple[int, ...]
    migrations: Mapping[str, str]
    applied: Sequence[str] | None = ("demo", "0001")
    rows: str = ROWS
    arguments: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    later: Mapping[str, str] = field(default_factory=dict)
    installed: Sequence[str] = ()
    settings: str = ""
    refused: bool = False
    outside: bool = False
    returncode: int = 1
    says: Sequence[str] = ()
    stays: str | None = None
    not_yet: str | None = None

    def is_refused(self, vendor: Vendor) -> bool:
        """Return whether a database of this kind makes it an error before anything runs."""
        return self.refused and (vendor is Vendor.MYSQL or (self.outside and vendor is Vendor.POSTGRESQL))

    def project(self, directory: Path, database: Database) -> SmallProject:
        """Write its project, and bring a database to where the call is to begin."""
        databases = {"default": database.django}
        project = SmallProject(
            directory / "project", databases, self.migrations, installed=self.installed, settings=self.settings
        )
        for path, text in self.files.items():
            project.write(path, text)
        if self.applied is not None:
            project.succeed("migrate", *self.applied, "--verbosity=0")
        if self.rows:
            execute(database, self.rows)
        for path, text in self.later.items():
            project.write(path, text)
        return project
