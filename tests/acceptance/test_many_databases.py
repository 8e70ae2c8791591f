"""More databases on one server than it takes connections, all prepared: all new, or all as they were."""

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from tests.support.deploys import SCRIPT, Outcome
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM, NOTE
from tests.support.small_project import SmallProject

pytestmark = pytest.mark.timeout(600)

_PLAN = """\
version = 1
[deploy]
name = "many"
expand_contract = false
minimum_atomicity = "two_phase"
max_lock_hold = "15min"
[projects.one]
path = "project"
settings = "small_settings"
env = {{ SMALL_DATABASES = "${{SMALL_DATABASES}}" }}
[databases.shards]
project = "one"
aliases = "shard_*"
[[phases]]
name = "all"
databases = ["shards:*"]
parallel = 4
{gate}
"""


class _Many:
    def __init__(self, directory: Path, databases: list[PostgresDatabase], release: dict[str, str]) -> None:
        self._directory = directory
        self.databases = databases
        self.settings = {f"shard_{number}": each.django for number, each in enumerate(databases)}
        SmallProject(directory / "project", {"default": databases[0].django} | self.settings, release)

    def deploy(self, gate: str = "") -> Outcome:
        """Deploy to all of them."""
        (self._directory / "deploy.toml").write_text(_PLAN.format(gate=gate))
        settings = {"default": self.databases[0].django} | self.settings
        done = subprocess.run(
            [SCRIPT, "deploy", "deploy.toml", "--json", "--log-format", "json"],
            cwd=self._directory,
            env=os.environ | {"SMALL_DATABASES": json.dumps(settings)},
            capture_output=True,
            text=True,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def new(self) -> int:
        """Count those that have the new column."""
        query = (
            "SELECT count(*) FROM information_schema.columns WHERE table_name = 'demo_item' AND column_name = 'note'"
        )

        def has_it(database: PostgresDatabase) -> int:
            with psycopg.connect(database.dsn) as session:
                return int((session.execute(query).fetchone() or (0,))[0])

        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(has_it, self.databases))


@pytest.fixture(params=[pytest.param(300, marks=pytest.mark.long), 24], ids=lambda number: f"{number} databases")
def many(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[_Many]:
    """As many databases, on a server with the default number of connections, or less for fewer."""
    count = int(request.param)
    connections = 100 if count > 100 else 22
    settings = THROW_AWAY | {"superuser_reserved_connections": 1}
    with (
        PostgresServer(max_connections=connections, max_prepared_transactions=count, settings=settings) as server,
        temporary_database(server) as first,
    ):
        SmallProject(tmp_path / "before", {"default": first.django}, {"demo.0001_item": ITEM}).succeed("migrate")
        names = [f"many_{number}" for number in range(count)]
        for name in names:
            server.create_database(name, first.name)
        databases = [PostgresDatabase(server, name) for name in names]
        yield _Many(tmp_path, databases, {"demo.0001_item": ITEM, "demo.0002_note": NOTE})


def test_all_are_new_or_all_are_as_they_were(many: _Many) -> None:
    failed = many.deploy('gate = ["false"]')

    assert (failed.exit_code, failed.report["outcome"]) == (1, "rolled_back"), failed.stderr[-3000:]
    assert many.databases[0].server.prepared() == []
    assert many.new() == 0

    outcome = many.deploy()

    assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
    assert {entry["tier"] for entry in outcome.report["databases"]} == {"two_phase"}
    assert many.databases[0].server.prepared() == []
    assert many.new() == len(many.databases)
