"""A deploy over many databases beside django-tenants, which keeps as many schemas in one database."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.many_databases import ManyDatabases
from benchmarks.measuring import Run, timed
from benchmarks.site import Site, State
from tests.support.histories import execute
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_home import program

__all__ = ["Tenants"]

_CUSTOMERS: Final = Path(__file__).parents[1] / "tests" / "projects" / "tenants"
_SETTINGS: Final = "tenants_settings"
# As many processes as there are cores: django-tenants' default is two.
_SETTINGS_TEXT: Final = """\
import os

from {site} import *

for database in DATABASES.values():
    database["ENGINE"] = "django_tenants.postgresql_backend"
SHARED_APPS = ["django_tenants", "customers"]
TENANT_APPS = INSTALLED_APPS
INSTALLED_APPS = [*SHARED_APPS, *TENANT_APPS]
TENANT_MODEL = "customers.Client"
TENANT_DOMAIN_MODEL = "customers.Domain"
DATABASE_ROUTERS = ["django_tenants.routers.TenantSyncRouter"]
TENANT_MULTIPROCESSING_MAX_PROCESSES = os.cpu_count()
"""
# Nothing in a dump is called like that but the schema.
_DUMPED: Final = "schema_of_one_tenant"
_MOVED: Final = f'ALTER SCHEMA public RENAME TO "{_DUMPED}"'
_CUSTOMER: Final = "INSERT INTO customers_client (schema_name) VALUES ('{schema}')"
_LEFT: Final = """
    SELECT app || '.' || name FROM {schema}.django_migrations
    UNION ALL
    SELECT concat_ws(' ', table_name, column_name, data_type, is_nullable) FROM information_schema.columns
    WHERE table_schema = '{schema}' AND table_name NOT LIKE 'smooth!_%' ESCAPE '!'
"""


class Tenants:
    """A deploy over databases, beside `migrate_schemas --executor=multiprocessing` over as many schemas of one.

    Each schema begins as a copy of what each database begins as, and ends like it: with the same migrations recorded,
    and the same columns. The peer leaves out the schema that all tenants share; it commits each migration of each
    schema by itself.

    Args:
        site: the project.
        databases: by alias, all on one server, which is the peer's too.
        state: where each run begins; not from zero.
        directory: for the plan, the journal and the peer's settings.
    """

    def __init__(self, site: Site, databases: Mapping[str, PostgresDatabase], state: State, directory: Path) -> None:
        self._site = site
        self._state = state
        self._directory = directory
        self._deploy = ManyDatabases(site, databases, state, directory)
        self._databases = databases
        self._server = next(iter(databases.values())).server
        self._schemas = {alias: f"tenant_{number}" for number, alias in enumerate(databases)}
        self._one = PostgresDatabase(self._server, "tenants")
        self._template = PostgresDatabase(self._server, f"tenants_{len(databases)}_{state}")
        self._is_made = False

    @property
    def name(self) -> str:
        """Such as `tenants/8-databases/five-pending`."""
        return f"tenants/{len(self._databases)}-databases/{self._state}"

    def prepare(self) -> None:
        """Put the databases back, and the one with the schemas."""
        self._deploy.prepare()
        if not self._is_made:
            self._make()
        elif self._state is State.NOTHING_PENDING:
            return
        self._is_made = True
        self._server.drop_database(self._one.name)
        self._server.create_database(self._one.name, self._template.name)

    def run_ours(self) -> Run:
        """Run the installed program."""
        done = self._deploy.run("deploy")
        left = {alias: _left(database, "public") for alias, database in self._databases.items()}
        return Run(done.duration_s, left, memory_mb=done.peak_mb)

    def run_peer(self) -> Run:
        """Run django-tenants' command."""
        words = ["--tenant", "--executor=multiprocessing", "--noinput", "--verbosity=0"]
        duration_s = self._migrate_schemas(self._one, *words)
        return Run(duration_s, {alias: _left(self._one, schema) for alias, schema in self._schemas.items()})

    def _migrate_schemas(self, database: PostgresDatabase, *words: str) -> float:
        path = os.pathsep.join([str(self._directory), str(_CUSTOMERS)])
        settings = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": _SETTINGS}
        environment = self._site.environment({"default": database}) | settings
        argv = [sys.executable, "manage.py", "migrate_schemas", *words]
        return timed(argv, cwd=self._site.project, env=environment)

    def _make(self) -> None:
        (self._directory / f"{_SETTINGS}.py").write_text(_SETTINGS_TEXT.format(site=self._site.settings))
        self._server.create_database(self._template.name)
        self._migrate_schemas(self._template, "--shared", "--noinput", "--run-syncdb", "--verbosity=0")
        one = PostgresDatabase(self._server, f"{self._template.name}_one")
        self._site.put(one, self._state)
        execute(one, _MOVED)
        argv = [str(program("pg_dump")), f"--schema={_DUMPED}", one.dsn]
        dumped = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        self._server.drop_database(one.name)
        for schema in self._schemas.values():
            argv = [str(program("psql")), "-qX", "-v", "ON_ERROR_STOP=1", "-d", self._template.dsn]
            restored = dumped.replace(_DUMPED, schema)
            subprocess.run(argv, input=restored, text=True, check=True, stdout=subprocess.DEVNULL)
            execute(self._template, _CUSTOMER.format(schema=schema))


def _left(database: PostgresDatabase, schema: str) -> frozenset[str]:
    """Return what a schema is like: its migrations, and its columns."""
    with database.connect() as session:
        rows = session.execute(_LEFT.format(schema=schema).encode()).fetchall()
    return frozenset(name for (name,) in rows)
