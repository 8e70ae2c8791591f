"""Databases of `django.contrib.gis`: they go by their vendor, and a failure leaves what there was before."""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, SqliteDatabase, execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.postgres_versions import Unavailable, programs_of
from tests.support.small_migrations import ITEM, run_python
from tests.support.small_project import SmallProject, migration

_VERSION = "15"
_PLACE = migration(
    "migrations.CreateModel('Place', [('id', models.BigAutoField(primary_key=True)), "
    "('at', gis.PointField(null=True)), ('area', gis.PolygonField(geography=True, null=True))])",
    "migrations.AddField('item', 'at', gis.PointField(null=True, srid=3857))",
    after=[("demo", "0001_item")],
    functions="from django.contrib.gis.db import models as gis",
)
_FILL = run_python("""\
from django.contrib.gis.geos import Point
    for item in apps.get_model('demo', 'Item').objects.all():
        apps.get_model('demo', 'Place').objects.create(at=Point(item.pk, 2))
        item.at = Point(1, item.pk, srid=3857)
        item.save()""")


def _fails(after: str) -> str:
    functions = run_python("raise ValueError('no')")
    return migration("migrations.RunPython(forwards, nothing)", after=[("demo", after)], functions=functions)


def _tables(database: SqliteDatabase) -> list[str]:
    """Return the names of its tables, without the product's and SQLite's own."""
    with closing(sqlite3.connect(database.path)) as connection:
        rows = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'smooth%' "
            "AND name NOT LIKE 'sqlite%' ORDER BY name"
        ).fetchall()
    return [name for (name,) in rows]


@pytest.fixture(scope="session")
def postgis_server() -> Iterator[PostgresServer]:
    """A server whose programs come with PostGIS, which the wheel's do not."""
    try:
        programs = programs_of(_VERSION)
    except Unavailable as reason:
        pytest.skip(str(reason))
    if not Path(f"/usr/share/postgresql/{_VERSION}/extension/postgis.control").exists():
        pytest.skip(f"PostGIS is not installed (Debian's package postgresql-{_VERSION}-postgis-3)")
    with PostgresServer(settings=THROW_AWAY, programs=programs) as server:
        yield server


@pytest.fixture
def postgis(postgis_server: PostgresServer, tmp_path: Path) -> Iterator[NewDatabases]:
    """Empty databases on it."""
    with ExitStack() as stack:
        yield NewDatabases(postgis_server, tmp_path, stack)


def _project(directory: Path, database: Database) -> SmallProject:
    entry = {**database.django, "ENGINE": "django.contrib.gis.db.backends.postgis"}
    return SmallProject(directory, {"default": entry}, {"demo.0001_item": ITEM}, installed=["django.contrib.gis"])


@pytest.mark.parametrize("atomic", ["True", "False"], ids=["held", "outside"])
def test_a_spatial_database_is_as_before(postgis: NewDatabases, tmp_path: Path, atomic: str) -> None:
    database = postgis.new()
    project = _project(tmp_path / "project", database)
    project.succeed("apply_migrations")
    execute(database, "INSERT INTO demo_item (name) VALUES ('tea'), ('jam')")
    before = dump(database.dsn, sequences=False)
    fill = migration("migrations.RunPython(forwards, nothing)", after=[("demo", "0002_place")], functions=_FILL)
    for name, source in (("0002_place", _PLACE), ("0003_fill", fill)):
        project.write_migration(f"demo.{name}", source.replace("atomic = True", f"atomic = {atomic}"))
    project.write_migration("demo.0004_fail", _fails("0003_fill"))

    result = project.run("apply_migrations")
    assert result.returncode == 1, result.stderr
    assert not diff(before, dump(database.dsn, sequences=False))

    project.write_migration("demo.0004_fail", _fails("0003_fill").replace("raise ValueError('no')", "pass"))
    project.succeed("apply_migrations")
    assert "demo_place" in dump(database.dsn)


def test_an_empty_spatial_database_is_empty_again(postgis: NewDatabases, tmp_path: Path) -> None:
    database = postgis.new()
    before = dump(database.dsn, sequences=False)
    project = _project(tmp_path / "project", database)
    project.write_migration("demo.0002_place", _PLACE)
    project.write_migration("demo.0003_fail", _fails("0002_place"))

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert not diff(before, dump(database.dsn, sequences=False))


# As SpatiaLite's, which not every Python can load: what each database needs is made in a transaction of its own.
_ENDS_TRANSACTIONS = """\
from django.db.backends.sqlite3 import base

class DatabaseWrapper(base.DatabaseWrapper):
    def prepare_database(self):
        with self.cursor() as cursor:
            if "geometry_columns" not in self.introspection.table_names(cursor):
                if self.connection.in_transaction:
                    cursor.execute("COMMIT")
                cursor.execute("BEGIN")
                cursor.execute("CREATE TABLE geometry_columns (name text)")
                cursor.execute("COMMIT")
"""


def test_a_backend_that_ends_transactions_prepares_its_database_before_one_begins(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path / "fresh.sqlite3")
    project = SmallProject(
        tmp_path / "project",
        {"default": {**database.django, "ENGINE": "spatial"}},
        {"demo.0001_item": ITEM, "demo.0002_fail": _fails("0001_item")},
    )
    project.write("spatial/__init__.py", "")
    project.write("spatial/base.py", _ENDS_TRANSACTIONS)

    result = project.run("apply_migrations")

    assert result.returncode == 1, result.stderr
    assert _tables(database) == ["geometry_columns"]
    project.write_migration("demo.0002_fail", _fails("0001_item").replace("raise ValueError('no')", "pass"))
    project.succeed("apply_migrations")
    assert _tables(database) == ["demo_item", "django_migrations", "geometry_columns"]
