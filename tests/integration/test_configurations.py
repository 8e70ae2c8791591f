"""Settings that real projects have: a success leaves what `migrate` leaves, a failure what there was before."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.dump import diff, dump
from tests.support.histories import Database, Vendor, execute
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.small_migrations import BROKEN, BROKEN_LATE, ITEM, KIND, NOTE, failing, run_python
from tests.support.small_project import SmallProject, migration

pytestmark = pytest.mark.long_on("sqlite")

_BLANK = {"django_migrations": ("id", "applied")}
_ONE_ITEM = "INSERT INTO demo_item (name) VALUES ('tea')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a project has besides the app `demo`.

    Args:
        settings: lines of its settings module.
        database: over each alias's own entry in DATABASES.
        installed: further apps, before ours.
        migrations: further ones, by `app.name`.
        files: by path in the project.
        arguments: of the command.
    """

    settings: str = ""
    database: Mapping[str, Any] = field(default_factory=dict)
    installed: tuple[str, ...] = ()
    migrations: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()

    def project(self, directory: Path, databases: Mapping[str, Database], **demo: str) -> SmallProject:
        """Write a project with `demo.0001_item` and further migrations of that app."""
        project = SmallProject(
            directory,
            {alias: {**database.django, **self.database} for alias, database in databases.items()},
            {"demo.0001_item": ITEM, **{f"demo.{name}": source for name, source in demo.items()}, **self.migrations},
            installed=self.installed,
            settings=self.settings,
        )
        for path, text in self.files.items():
            project.write(path, text)
        return project


def assert_undone_and_like_stock(configuration: Configuration, databases: NewDatabases, directory: Path) -> None:
    """Fail in a transaction and outside one, then succeed, on a database with a row; compare with `migrate`.

    Args:
        configuration: of the projects.
        databases: two are made.
        directory: for the projects.
    """
    stock, ours = databases.new(), databases.new()
    projects = [
        configuration.project(directory / name, {"default": database})
        for name, database in (("stock", stock), ("ours", ours))
    ]
    for project, database in zip(projects, (stock, ours), strict=True):
        project.succeed("migrate", "--verbosity=0", *configuration.arguments)
        execute(database, _ONE_ITEM)
        project.write_migration("demo.0002_note", NOTE)
    before = dump(ours.dsn, sequences=False)

    for broken in (BROKEN, BROKEN_LATE):
        projects[1].write_migration("demo.0003_kind", broken)
        result = projects[1].run("apply_migrations", *configuration.arguments)
        assert (result.returncode, result.stderr.splitlines()[-1]) == (1, "ValueError: no such kind"), result.stderr
        assert not diff(before, dump(ours.dsn, sequences=False))

    outputs = []
    for project, command in zip(projects, ("migrate", "apply_migrations"), strict=True):
        project.write_migration("demo.0003_kind", KIND)
        outputs.append(project.succeed(command, *configuration.arguments))
    assert outputs[0] == outputs[1]
    assert not diff(*(dump(database.dsn, sequences=False, blank=_BLANK) for database in (stock, ours)))


CUSTOM_USER = Configuration(
    # The admin wants templates and middleware, which nothing here needs.
    settings='AUTH_USER_MODEL = "people.Person"\nSILENCED_SYSTEM_CHECKS = [f"admin.E{n}" for n in range(403, 411)]',
    installed=("django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin", "people"),
    files={
        "people/__init__.py": "",
        "people/models.py": (
            "from django.contrib.auth.models import AbstractUser\nfrom django.db import models\n\n"
            "class Person(AbstractUser):\n    nickname = models.CharField(max_length=40, default='none')\n"
        ),
        "people/migrations/__init__.py": "",
        "people/migrations/0001_initial.py": migration(
            "migrations.CreateModel('Person', [('id', models.BigAutoField(primary_key=True)), "
            "('password', models.CharField(max_length=128)), ('last_login', models.DateTimeField(null=True)), "
            "('is_superuser', models.BooleanField(default=False)), "
            "('username', models.CharField(max_length=150, unique=True)), "
            "('groups', models.ManyToManyField(to='auth.group'))])",
            after=[("auth", "0001_initial")],
        ).replace("initial = False", "initial = True"),
    },
)
_MODEL = "from django.db import models\n\nclass Crate(models.Model):\n    size = models.IntegerField()\n"
UNMIGRATED = Configuration(
    installed=("crates",), files={"crates/__init__.py": "", "crates/models.py": _MODEL}, arguments=("--run-syncdb",)
)
SWITCHED_OFF = Configuration(
    settings='MIGRATION_MODULES = {"crates": None}',
    migrations={"crates.0001_initial": migration("migrations.RunSQL('SELECT nonsense')")},
    files={"crates/models.py": _MODEL},
    arguments=("--run-syncdb",),
)


@pytest.mark.parametrize(
    "configuration",
    [
        pytest.param(CUSTOM_USER, id="a custom user model"),
        pytest.param(UNMIGRATED, id="an app without migrations", marks=pytest.mark.long),
        pytest.param(SWITCHED_OFF, id="MIGRATION_MODULES with None"),
        pytest.param(
            Configuration(settings='USE_TZ = False\nTIME_ZONE = "Europe/Berlin"'),
            id="USE_TZ = False",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_project_is_moved_as_by_migrate_or_not_at_all(
    configuration: Configuration, databases: NewDatabases, tmp_path: Path
) -> None:
    assert_undone_and_like_stock(configuration, databases, tmp_path)


@pytest.mark.parametrize(
    "database",
    [
        pytest.param({"OPTIONS": {"pool": {"min_size": 1, "max_size": 1}}}, id="a pool of one"),
        pytest.param(
            {
                "ATOMIC_REQUESTS": True,
                "CONN_MAX_AGE": None,
                "CONN_HEALTH_CHECKS": True,
                "DISABLE_SERVER_SIDE_CURSORS": True,
            },
            id="what requests are served with",
        ),
        pytest.param({"OPTIONS": {"server_side_binding": True}}, id="server-side binding", marks=pytest.mark.long),
        pytest.param({"OPTIONS": {"isolation_level": 4}}, id="serializable", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("databases", [Vendor.POSTGRESQL], indirect=True)
def test_a_project_on_postgresql_is_moved_as_by_migrate_or_not_at_all(
    database: Mapping[str, Any], databases: NewDatabases, tmp_path: Path
) -> None:
    assert_undone_and_like_stock(Configuration(database=database), databases, tmp_path)


@pytest.mark.parametrize("cursors", [{}, {"DISABLE_SERVER_SIDE_CURSORS": True}], ids=["server-side", "client-side"])
def test_a_migration_that_fails_while_it_iterates_over_rows_is_undone(
    cursors: Mapping[str, Any], databases: NewDatabases, tmp_path: Path
) -> None:
    database = databases.new()
    reading = failing("[1 / 0 for item in apps.get_model('demo', 'Item').objects.iterator(chunk_size=1)]")
    project = Configuration(database=cursors).project(tmp_path, {"default": database})
    project.succeed("migrate", "--verbosity=0")
    execute(database, f"{_ONE_ITEM}, ('jam'), ('nut')")
    project.write_migration("demo.0002_note", NOTE)
    project.write_migration("demo.0003_kind", reading)
    before = databases.dump(database)

    result = project.run("apply_migrations")

    assert (result.returncode, "ZeroDivisionError: division by zero\n" in result.stderr) == (1, True)
    assert not diff(before, databases.dump(database))


_ROUTER = """\
class Router:
    def allow_migrate(self, db, app_label, **hints):
        return app_label != "demo" if db == "other" else None
"""


def test_what_a_router_keeps_off_an_alias_is_recorded_there_and_unrecorded(
    databases: NewDatabases, tmp_path: Path
) -> None:
    crates = migration("migrations.CreateModel('Crate', [('id', models.BigAutoField(primary_key=True))])")
    broken = migration(
        "migrations.RunPython(forwards)",
        after=[("crates", "0001_initial"), ("demo", "0002_note")],
        functions=run_python("raise ValueError('no such crate')"),
    )
    configuration = Configuration(
        settings='DATABASE_ROUTERS = ["router.Router"]',
        files={"router.py": _ROUTER},
        migrations={"crates.0001_initial": crates},
    )
    made = [{alias: databases.new() for alias in ("default", "other")} for _ in range(2)]
    stock, ours = (
        configuration.project(tmp_path / name, aliases, **{"0002_note": NOTE})
        for name, aliases in zip(("stock", "ours"), made, strict=True)
    )
    other = made[1]["other"]
    ours.succeed("migrate", "demo", "0001", "--database=other", "--verbosity=0")
    before = databases.dump(other)
    ours.write_migration("crates.0002_broken", broken)

    assert ours.run("apply_migrations", "--database=other").returncode == 1
    assert not diff(before, databases.dump(other))

    ours.write_migration("crates.0002_broken", broken.replace("raise ValueError('no such crate')", "pass"))
    stock.write_migration("crates.0002_broken", broken.replace("raise ValueError('no such crate')", "pass"))
    assert (
        stock.succeed("migrate", "--database=other").splitlines()[-2:]
        == (ours.succeed("apply_migrations", "--database=other").splitlines()[-2:])
    )
    dumps = [dump(aliases["other"].dsn, sequences=False, blank=_BLANK) for aliases in made]
    assert not diff(*dumps)
    assert "demo_item" not in dumps[1]


def test_a_replica_is_left_alone(databases: NewDatabases, tmp_path: Path) -> None:
    database = databases.new()
    # Nobody answers there, and whoever asks fails.
    replica = {"ENGINE": "django.db.backends.postgresql", "NAME": "nobody", "HOST": "127.0.0.1", "PORT": "1"}
    project = SmallProject(
        tmp_path,
        {"default": database.django, "replica": {**replica, "TEST": {"MIRROR": "default"}}},
        {"demo.0001_item": ITEM, "demo.0002_note": NOTE, "demo.0003_kind": BROKEN_LATE},
    )
    project.succeed("migrate", "demo", "0001", "--verbosity=0")
    before = databases.dump(database)

    assert project.run("apply_migrations").stderr.endswith("ValueError: no such kind\n")
    assert not diff(before, databases.dump(database))

    project.write_migration("demo.0003_kind", KIND)
    project.succeed("apply_migrations")
    assert "0003_kind" in databases.dump(database)


# --- several schemas -----------------------------------------------------------------------------------------------

_MINE = Configuration(database={"OPTIONS": {"options": "-c search_path=mine"}})
_THEIRS = """\
CREATE TABLE theirs.demo_item (id bigint PRIMARY KEY, name varchar(40));
CREATE TABLE theirs.django_migrations (id bigint PRIMARY KEY, app text, name text);
INSERT INTO theirs.demo_item VALUES (1, 'tea');
INSERT INTO theirs.django_migrations VALUES (1, 'demo', '0001_item');
"""


def _with_schemas(databases: NewDatabases, *further: str) -> PostgresDatabase:
    database = databases.new()
    assert isinstance(database, PostgresDatabase)
    execute(database, "; ".join(["CREATE SCHEMA mine", "CREATE SCHEMA theirs", *further]))
    return database


@pytest.mark.parametrize("databases", [Vendor.POSTGRESQL], indirect=True)
def test_a_project_in_a_schema_of_its_own_touches_no_other(databases: NewDatabases, tmp_path: Path) -> None:
    ours, stock = (_with_schemas(databases, _THEIRS) for _ in range(2))
    project = _MINE.project(tmp_path / "ours", {"default": ours}, **{"0002_note": NOTE, "0003_kind": BROKEN_LATE})
    before = databases.dump(ours)

    assert project.run("apply_migrations").stderr.endswith("ValueError: no such kind\n")
    assert not diff(before, databases.dump(ours))

    project.write_migration("demo.0003_kind", KIND)
    project.succeed("apply_migrations")
    _MINE.project(tmp_path / "stock", {"default": stock}, **{"0002_note": NOTE, "0003_kind": KIND}).succeed("migrate")
    assert not diff(*(dump(database.dsn, sequences=False, blank=_BLANK) for database in (stock, ours)))


@pytest.mark.parametrize("databases", [Vendor.POSTGRESQL], indirect=True)
def test_what_another_project_brings_into_its_schema_meanwhile_stays(databases: NewDatabases, tmp_path: Path) -> None:
    database = _with_schemas(databases)
    meanwhile = failing(
        f"import psycopg; psycopg.connect({database.dsn!r}, autocommit=True).execute({_THEIRS!r}).connection.close(); "
        "raise ValueError('no such kind')",
        atomic=False,
    )
    project = _MINE.project(tmp_path, {"default": database}, **{"0002_note": NOTE, "0003_kind": meanwhile})

    result = project.run("apply_migrations")

    assert not diff(databases.dump(_with_schemas(databases, _THEIRS)), databases.dump(database))
    # It is not for us to say that this is well.
    assert result.returncode == 4
    assert "the schema is not as it was before:" in result.stderr
    assert "mine." not in result.stderr.partition("the schema is not as it was before:")[2]
    project.write_migration("demo.0003_kind", KIND)
    # Nor is it ours to undo again.
    assert project.run("apply_migrations").returncode == 4
    assert not diff(databases.dump(_with_schemas(databases, _THEIRS)), databases.dump(database))
    project.succeed("apply_migrations", "--no-fingerprint")
