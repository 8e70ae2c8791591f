"""Projects whose next release fills columns batch by batch."""

from pathlib import Path

from tests.support.histories import Database, execute
from tests.support.small_project import SmallProject, migration

__all__ = ["IMPORTS", "ITEM", "fill", "filling_project", "insert_items"]

IMPORTS = """\
from django.db.models import F, Q
from django.db.models.functions import Upper
from smooth_migrations import Backfill
"""
ITEM = migration(
    "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
    "('name', models.CharField(max_length=40)), ('note', models.CharField(max_length=40, null=True)), "
    "('other', models.CharField(max_length=40, null=True)), ('touched', models.IntegerField(default=0))])"
)
"""demo.0001_item, with columns that may be empty, and one that counts how often a row was written."""


def fill(arguments: str, *others: str, atomic: bool = False) -> str:
    """Return demo.0002_fill.

    Args:
        arguments: of its Backfill.
        others: further operations, behind it.
        atomic: its attribute of that name.
    """
    operations = (f"Backfill({arguments})", *others)
    return migration(*operations, after=[("demo", "0001_item")], atomic=atomic, functions=IMPORTS)


def filling_project(directory: Path, database: Database, release: str, *, rows: int, item: str = ITEM) -> SmallProject:
    """Bring a database to demo.0001_item, with so many rows, and write what comes next as demo.0002_fill."""
    project = SmallProject(directory / "project", {"default": database.django}, {"demo.0001_item": item})
    project.succeed("migrate", "--verbosity=0")
    insert_items(database, rows)
    project.write_migration("demo.0002_fill", release)
    return project


def insert_items(database: Database, rows: int) -> None:
    """Insert rows that are still to be filled."""
    if rows:
        values = ", ".join(f"('row {number}', 0)" for number in range(rows))
        execute(database, f"INSERT INTO demo_item (name, touched) VALUES {values}")
