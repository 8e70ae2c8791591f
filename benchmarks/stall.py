"""How long clients stand still while the tables that they use are changed and a long transaction is in the way."""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import psycopg

from benchmarks.clients import Load, Waits, serving
from benchmarks.measuring import Run, timed
from benchmarks.site import recorded
from tests.support.histories import execute
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import SmallProject, migration

__all__ = ["Stall"]

_PROGRAM = Path(sys.executable).with_name("smooth-orchestrate")
_PLAN = """\
version = 1

[deploy]
name = "benchmark"

[projects.site]
path = "ours"
settings = "small_settings"

[databases.site]
project = "site"
alias = "default"

[finalise]
bake_time = "0s"
"""
_FIRST = migration(
    "migrations.CreateModel('Kind', [('id', models.BigAutoField(primary_key=True)), "
    "('label', models.CharField(max_length=20))])",
    "migrations.CreateModel('Item', [('id', models.BigAutoField(primary_key=True)), "
    "('name', models.CharField(max_length=40)), ('note', models.TextField(default='')), "
    "('code', models.CharField(max_length=20, db_index=True)), ('amount', models.IntegerField())])",
)
# Of each table something is changed at the deploy, and something when it is finalised; the clients' statements are
# those of either release.
_SMALL = migration(
    "migrations.AddField('item', 'size', models.IntegerField(default=7))",
    "migrations.AddField('item', 'kind', models.ForeignKey('demo.Kind', models.CASCADE, null=True))",
    "migrations.RemoveField('item', 'note')",
    "migrations.AddField('kind', 'rank', models.IntegerField(default=0))",
    after=[("demo", "0001_first")],
)
# What every row is read or written for.
_LARGE = migration(
    "migrations.RenameField('item', 'code', 'mark')",
    "migrations.AlterField('item', 'amount', models.BigIntegerField())",
    "migrations.AddIndex('item', models.Index(fields=['name'], name='item_name'))",
    "migrations.AddConstraint('item', models.CheckConstraint(condition=models.Q(amount__gte=0), name='item_paid'))",
    after=[("demo", "0001_first")],
)
_ROWS = """
    INSERT INTO demo_kind (label) SELECT 'kind ' || n FROM generate_series(1, 1000) AS n;
    INSERT INTO demo_item (name, note, code, amount)
    SELECT 'item ' || n, '', 'code ' || n, n FROM generate_series(1, {rows}) AS n;
"""
_READS = ["SELECT name FROM demo_item WHERE id = 1", "SELECT label FROM demo_kind WHERE id = 1"]
_WRITES = [
    "UPDATE demo_item SET name = 'item' WHERE id = 2",
    "UPDATE demo_kind SET label = 'kind' WHERE id = 2",
]
_RATE_HZ = 100


class Stall:
    """A client that reads and one that writes, and a transaction that has read both tables and stays open.

    The time is the longest that one statement of the clients took, from the start of the program to its end: of ours
    through `deploy` and `finalise`, each with such a transaction in the way; of the peer through `migrate`, which does
    both at once. Beside it: `finalise` by itself, and for how long a client stood still in all.

    Args:
        server: of the database.
        directory: for the projects, the plan and the journal.
        reader_s: for how long the transaction stays open.
        rows: so many does one table have, and what is done reads or writes each of them; else it has a thousand.
    """

    def __init__(self, server: PostgresServer, directory: Path, reader_s: float, rows: int | None = None) -> None:
        name = "stall" if rows is None else f"stall_{rows}"
        self._database = PostgresDatabase(server, name)
        self._template = PostgresDatabase(server, f"{name}_template")
        self._directory = directory / name
        self._reader_s = reader_s
        self._rows = rows

    @property
    def name(self) -> str:
        """Such as `stall/30-second-reader`, or `stall/1000000-rows`."""
        return f"stall/{self._reader_s:g}-second-reader" if self._rows is None else f"stall/{self._rows}-rows"

    def prepare(self) -> None:
        """Put the database back, and begin a new journal."""
        if not self._directory.exists():
            self._make()
        shutil.rmtree(self._directory / ".smooth", ignore_errors=True)
        server = self._database.server
        server.drop_database(self._database.name)
        server.create_database(self._database.name, self._template.name)

    def run_ours(self) -> Run:
        """Deploy, and finalise."""
        return self._told([self._waits([str(_PROGRAM), each, "deploy.toml"], ".") for each in ("deploy", "finalise")])

    def run_peer(self) -> Run:
        """Run `migrate`."""
        return self._told([self._waits([sys.executable, "manage.py", "migrate", "--no-input"], "stock")])

    def _told(self, waits: Sequence[Waits]) -> Run:
        longest_s = [each.longest_s for each in waits]
        beside = {"finalise": longest_s[-1], "in-all": sum(each.stalled_s for each in waits)}
        return Run(max(longest_s), recorded({"default": self._database}), beside)

    def _waits(self, argv: Sequence[str], place: str) -> Waits:
        loads = [Load(statements, _RATE_HZ) for statements in (_READS, _WRITES)]
        with _reading(self._database, self._reader_s), serving(self._database.dsn, *loads) as waits:
            timed(argv, cwd=self._directory / place, env=self._environment)
        return waits

    @property
    def _environment(self) -> Mapping[str, str]:
        return {"SMALL_DATABASES": json.dumps({"default": self._database.django})}

    def _make(self) -> None:
        self._template.server.create_database(self._template.name)
        databases = {"default": self._template.django}
        release = _SMALL if self._rows is None else _LARGE
        SmallProject(self._directory / "ours", databases, {"demo.0001_first": _FIRST, "demo.0002_next": release})
        settings = "INSTALLED_APPS.remove('smooth_migrations')"
        stock = SmallProject(self._directory / "stock", databases, {"demo.0001_first": _FIRST}, settings=settings)
        stock.succeed("migrate", "--verbosity=0")
        stock.write_migration("demo.0002_next", release)
        execute(self._template, _ROWS.format(rows=self._rows or 1000))
        (self._directory / "deploy.toml").write_text(_PLAN)


@contextmanager
def _reading(database: PostgresDatabase, duration_s: float) -> Iterator[None]:
    """Keep a transaction open that has read both tables, for so long, whatever becomes of the block."""
    with psycopg.connect(database.dsn) as session:
        session.execute("SELECT FROM demo_item, demo_kind LIMIT 1")
        end = Timer(duration_s, session.rollback)
        end.start()
        try:
            yield
        finally:
            end.cancel()
            end.join()
