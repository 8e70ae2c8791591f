"""Packages that bring a database backend or a `migrate` of their own: ours works beside them, or refuses by name."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_configurations import Configuration, assert_undone_and_like_stock
from tests.support.dump import diff, dump
from tests.support.histories import Vendor
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase
from tests.support.runs import running_in
from tests.support.small_migrations import BROKEN_LATE, ITEM, KIND, NOTE
from tests.support.small_project import SmallProject

_MODULES = {Vendor.POSTGRESQL: "postgresql", Vendor.SQLITE: "sqlite3"}
_OWN = """\
from django.db.backends.{module} import base

class DatabaseWrapper(base.DatabaseWrapper):
    display_name = "our own"
"""
_PLAN = """\
version = 1
deploy = { name = "small", expand_contract = false }
projects.one = { path = "project", settings = "small_settings", env = { SMALL_DATABASES = "${SMALL_DATABASES}" } }
databases.primary = { project = "one", alias = "default" }
"""
_TENANTS = Configuration(
    settings="""
SHARED_APPS = ["django_tenants", "customers", "django.contrib.contenttypes"]
TENANT_APPS = ["django.contrib.contenttypes", "demo"]
INSTALLED_APPS = [*SHARED_APPS, "demo", "smooth_migrations"]
TENANT_MODEL = "customers.Client"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
""",
    database={"ENGINE": "django_tenants.postgresql_backend"},
    files={
        "customers/__init__.py": "",
        "customers/models.py": (
            "from django_tenants.models import DomainMixin, TenantMixin\n\n"
            "class Client(TenantMixin):\n    pass\n\nclass Domain(DomainMixin):\n    pass\n"
        ),
    },
)
_ZERO_DOWNTIME = Configuration(database={"ENGINE": "django_zero_downtime_migrations.backends.postgres"})


@pytest.mark.long
def test_a_backend_that_a_project_made_of_djangos_own_is_known_by_its_vendor(
    databases: NewDatabases, tmp_path: Path
) -> None:
    own = _OWN.format(module=_MODULES[databases.vendor])
    configuration = Configuration(database={"ENGINE": "own"}, files={"own/__init__.py": "", "own/base.py": own})
    assert_undone_and_like_stock(configuration, databases, tmp_path)


@pytest.mark.older_django
@pytest.mark.skipif(
    find_spec("django_prometheus") is None,
    reason="django-prometheus does not allow Django 6.1 yet; it is installed with Python 3.11, which has no Django 6",
)
def test_the_backends_of_django_prometheus_are_known_by_their_vendor(databases: NewDatabases, tmp_path: Path) -> None:
    configuration = Configuration(
        database={"ENGINE": f"django_prometheus.db.backends.{_MODULES[databases.vendor]}"},
        installed=("django_prometheus",),
        settings="PROMETHEUS_EXPORT_MIGRATIONS = True",
    )
    assert_undone_and_like_stock(configuration, databases, tmp_path)


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        pytest.param(
            _TENANTS,
            "django_tenants.postgresql_backend keeps a schema for each tenant, "
            "and a call moves and takes back only one schema",
            id="django-tenants",
        ),
        pytest.param(
            _ZERO_DOWNTIME,
            "the schema editor of django_zero_downtime_migrations.backends.postgres commits each statement by itself, "
            "so that a broken operation would stay",
            id="django-pg-zero-downtime-migrations",
        ),
    ],
)
def test_a_backend_whose_work_could_not_be_taken_back_is_refused_by_name(
    configuration: Configuration, words: str, pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    project = configuration.project(tmp_path / "project", {"default": pg_database})
    before = dump(pg_database.dsn)

    result = project.run("apply_migrations")

    assert (result.returncode, result.stderr) == (3, f"CommandError: Refused: {words}; nothing was run\n")
    deployed = _deployed(tmp_path, {"default": {**pg_database.django, **configuration.database}})
    assert deployed == (3, [f"primary: {words}"])
    assert dump(pg_database.dsn) == before


def _deployed(directory: Path, databases: Mapping[str, Mapping[str, Any]]) -> tuple[int, list[str]]:
    (directory / "deploy.toml").write_text(_PLAN)
    with running_in(directory, {"SMALL_DATABASES": json.dumps(databases)}) as run:
        outcome = run.finish()
    return outcome.exit_code, [f"{error['place']}: {error['message']}" for error in outcome.report["errors"]]


@pytest.mark.parametrize("databases", [Vendor.POSTGRESQL], indirect=True)
def test_without_an_undo_the_backend_of_zero_downtime_migrations_does_what_it_does_under_migrate(
    tmp_path: Path, databases: NewDatabases
) -> None:
    made = [databases.new() for _ in range(2)]
    for database, arguments in zip(made, (["migrate"], ["apply_migrations", "--no-rollback"]), strict=True):
        project = _ZERO_DOWNTIME.project(tmp_path / arguments[0], {"default": database}, **{"0002_note": NOTE})
        project.succeed(*arguments)
    assert not diff(*(dump(database.dsn, ignore_applied_times=True) for database in made))


def test_another_alias_of_a_project_with_such_a_backend_is_moved_or_not_at_all(
    pg_database: PostgresDatabase, tmp_path: Path
) -> None:
    path = tmp_path / "plain.sqlite3"
    project = SmallProject(
        tmp_path / "project",
        {
            "default": {**pg_database.django, **_ZERO_DOWNTIME.database},
            "plain": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(path)},
        },
        {"demo.0001_item": ITEM},
    )
    project.succeed("apply_migrations", "--database=plain")
    project.write_migration("demo.0002_note", NOTE)
    project.write_migration("demo.0003_kind", BROKEN_LATE)
    before = dump(path)

    assert project.run("apply_migrations", "--database=plain").returncode == 1
    assert not diff(before, dump(path))

    project.write_migration("demo.0003_kind", KIND)
    project.succeed("apply_migrations", "--database=plain")
    assert "0003_kind" in dump(path)
