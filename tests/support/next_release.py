"""A project at its first migration, with rows, and a release of it that comes next."""

from collections.abc import Mapping
from pathlib import Path

from tests.support.histories import Database, execute
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

__all__ = ["project_of"]


def project_of(directory: Path, database: Database, release: Mapping[str, str] | None = None) -> SmallProject:
    """Bring a database to demo.0001_item, with rows, and write what comes next.

    Args:
        directory: in which the project comes to be, as `project`.
        database: an empty one.
        release: the source of each further migration, by `app.name`.
    """
    project = SmallProject(directory / "project", {"default": database.django}, {"demo.0001_item": ITEM})
    project.succeed("migrate", "--verbosity=0")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea'), ('jam')")
    for key, source in (release or {}).items():
        project.write_migration(key, source)
    return project
