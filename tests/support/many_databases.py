"""Many databases of one project, at `demo.0001_item`, and the installed program run over all of them at once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from tests.support import over_fleet
from tests.support.dump import dump
from tests.support.postgres_database import PostgresDatabase, temporary_database
from tests.support.postgres_server import PostgresServer
from tests.support.runs import Outcome, Running, decisions_in, run_in, running_in
from tests.support.small_migrations import ITEM
from tests.support.small_project import SmallProject

__all__ = ["ManyDatabases", "many_databases"]

_PLAN = """\
version = 1
[deploy]
name = "many"
expand_contract = false
minimum_atomicity = "two_phase"
max_lock_hold = "15min"
{deploy}
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
_HAS_IT = "SELECT count(*) FROM information_schema.columns WHERE (table_name, column_name) = ('demo_item', 'note')"


class ManyDatabases:
    """All of them, in one phase.

    Args:
        directory: for the plan and the project.
        databases: which.
        release: the project's migrations; the last of them make a column `note` of `demo_item`.
        templates: what each was copied from, by server.
    """

    def __init__(
        self,
        directory: Path,
        databases: Sequence[PostgresDatabase],
        release: dict[str, str],
        templates: Mapping[PostgresServer, str],
    ) -> None:
        self.directory = directory
        self.databases = databases
        self._templates = templates
        self._settings = {f"shard_{number}": each.django for number, each in enumerate(databases)}
        SmallProject(directory / "project", self._settings, release)
        self.plan()

    @property
    def environment(self) -> dict[str, str]:
        """What the project reads from its environment."""
        return {"SMALL_DATABASES": json.dumps({"default": self._settings["shard_0"]} | self._settings)}

    def reach_through(self, port: int) -> None:
        """Let the program reach all of them through a proxy on this port."""
        self._settings = {alias: {**each, "PORT": str(port)} for alias, each in self._settings.items()}

    def set(self, *aliases: str, **values: object) -> None:
        """Let the settings of some aliases, or of all, have other values."""
        chosen = aliases or (*self._settings,)
        self._settings |= {alias: {**self._settings[alias], **values} for alias in chosen}

    def make_empty(self) -> None:
        """Take out everything that is in them."""
        for each in self.databases:
            with each.connect() as session:
                session.execute("DROP SCHEMA public CASCADE")
                session.execute("CREATE SCHEMA public")

    def reset(self) -> None:
        """Make them what they were at first, with none of the product's tables; sessions in them are ended."""
        for each in self.databases:
            each.server.drop_database(each.name)
            each.server.create_database(each.name, self._templates[each.server])

    def plan(self, gate: str = "", deploy: str = "") -> None:
        """Write the plan, with further lines for its phase and for all of it."""
        (self.directory / "deploy.toml").write_text(_PLAN.format(gate=gate, deploy=deploy))

    def run(self, command: str, *options: str) -> Outcome:
        """Run a command to its end."""
        return run_in(self.directory, self.environment, command, *options)

    @contextmanager
    def running(self, *, own_group: bool = False) -> Iterator[Running]:
        """Start a deploy; what is left of it ends with the block."""
        with running_in(self.directory, self.environment, own_group=own_group) as run:
            yield run

    def prepared(self) -> list[str]:
        """Return the gids of the transactions that stand prepared in them."""
        return [gid for each in self.databases for gid in each.server.prepared(each.name)]

    def decisions(self) -> list[str]:
        """Return the decisions in the journal, in order."""
        return decisions_in(self.directory)

    def dumps(self, *, sequences: bool = True) -> list[str]:
        """Return a dump of each, without when migrations were applied.

        Args:
            sequences: whether how far each has come is told.
        """
        return [dump(each.dsn, ignore_applied_times=True, sequences=sequences) for each in self.databases]

    def rows(self, query: str) -> list[list[tuple[object, ...]]]:
        """Return what a query finds in each."""
        found = []
        for each in self.databases:
            with each.connect() as session:
                found.append(session.execute(query).fetchall())
        return found

    def new(self) -> int:
        """Count those that have the new column."""

        def has_it(database: PostgresDatabase) -> int:
            with psycopg.connect(database.dsn) as session:
                return int((session.execute(_HAS_IT).fetchone() or (0,))[0])

        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(has_it, self.databases))


@contextmanager
def many_databases(
    directory: Path, servers: Sequence[PostgresServer], count: int, release: dict[str, str]
) -> Iterator[ManyDatabases]:
    """Create them, in turns on the servers; they are dropped with the block."""
    made: list[PostgresDatabase] = []
    templates: dict[PostgresServer, str] = {}
    with ExitStack() as stack:
        for number, server in enumerate(servers):
            first = stack.enter_context(temporary_database(server))
            templates[server] = first.name
            migrations = {"demo.0001_item": ITEM}
            SmallProject(directory / f"before_{number}", {"default": first.django}, migrations).succeed("migrate")
            for index in range(number, count, len(servers)):
                database = PostgresDatabase(server, f"{first.name}_{index}")
                stack.callback(server.drop_database, database.name)
                server.create_database(database.name, first.name)
                made.append(database)
        stack.enter_context(over_fleet.serving(directory))
        yield ManyDatabases(directory, made, release, templates)
