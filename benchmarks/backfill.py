"""`Backfill` of a large table, beside the one UPDATE that it stands for."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from benchmarks.clients import Load, Waits, serving
from benchmarks.measuring import Run
from tests.support.filled import ITEM, fill
from tests.support.histories import execute
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer
from tests.support.small_project import SmallProject

__all__ = ["BackfillBesideWriters", "BackfillOfMoreRows", "BackfillOfRows"]

_ROWS = """
    INSERT INTO demo_item (name, touched) SELECT 'item number ' || n, 0 FROM generate_series(1, {rows}) AS n
"""
# What keeps the new column right while the release that does not know it writes; it is called for each row that is
# filled, too.
_TRIGGER = """
    CREATE FUNCTION demo_note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.note := upper(NEW.name);
        RETURN NEW;
    END
    $$;
    CREATE TRIGGER demo_note BEFORE INSERT OR UPDATE ON demo_item FOR EACH ROW EXECUTE FUNCTION demo_note();
"""
_UPDATE = "UPDATE demo_item SET note = upper(name) WHERE note IS NULL"
_UNFILLED = "SELECT count(*) FROM demo_item WHERE note IS DISTINCT FROM upper(name)"
_TIME = re.compile(r" OK \(([0-9.]+)s\)")
_FILL = fill("'Item', {'note': Upper('name')}")
_WRITERS = 5
_WRITES_HZ = 500


class BackfillOfRows:
    """A column of every row; the time is that of the migration, and of the UPDATE, alone.

    Args:
        server: where the tables are made.
        directory: for the project.
        rows: how many.
        trigger: whether a trigger keeps the column right, and is called for each row.
    """

    def __init__(self, server: PostgresServer, directory: Path, rows: int, *, trigger: bool = False) -> None:
        self.rows = rows
        self._trigger = trigger
        self._database = PostgresDatabase(server, self.name.replace("/", "_"))
        self._template = PostgresDatabase(server, f"{self._database.name}_template")
        self._directory = directory / self._database.name

    @property
    def name(self) -> str:
        """Such as `backfill/1000000-rows`."""
        return f"backfill/{self.rows}-rows{'-trigger' if self._trigger else ''}"

    def prepare(self) -> None:
        """Put the table back."""
        server = self._database.server
        if not self._directory.exists():
            self._make()
        server.drop_database(self._database.name)
        server.create_database(self._database.name, self._template.name)
        execute(self._database, "CHECKPOINT")

    def run_ours(self) -> Run:
        """Run a migration with a `Backfill`."""
        return self._run(self._backfill)

    def run_peer(self) -> Run:
        """Run one UPDATE."""
        return self._run(self._update)

    def _run(self, fill: Callable[[], float]) -> Run:
        duration_s = fill()
        self._look()
        return Run(duration_s, {})

    def _backfill(self) -> float:
        project = SmallProject(self._directory, {"default": self._database.django}, {"demo.0002_fill": _FILL})
        with project.start("migrate", "--verbosity=2", "--no-color") as process:
            told = _read_until("Applying demo.0002_fill...", process.stdout)
            with self._at_work():
                stdout, stderr = process.communicate()
        if not (found := _TIME.match(stdout)):
            raise RuntimeError(f"exit code {process.returncode}:\n{told}{stdout}{stderr}")
        return float(found[1])

    def _update(self) -> float:
        with self._database.connect() as session, self._at_work():
            started_s = time.perf_counter()
            session.execute(_UPDATE)
            return time.perf_counter() - started_s

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Stand beside the filling itself, without what goes before it."""
        yield

    def _look(self) -> None:
        with self._database.connect() as session:
            (unfilled,) = session.execute(_UNFILLED).fetchone() or (None,)
        if unfilled != 0:
            raise RuntimeError(f"{self.name}: {unfilled} rows are not filled")

    def _make(self) -> None:
        self._template.server.create_database(self._template.name)
        project = SmallProject(self._directory, {"default": self._template.django}, {"demo.0001_item": ITEM})
        project.succeed("migrate", "--verbosity=0")
        execute(self._template, _ROWS.format(rows=self.rows))
        if self._trigger:
            execute(self._template, _TRIGGER)
        # As a table is that has been there for a while.
        execute(self._template, "VACUUM ANALYZE demo_item")


def _read_until(text: str, stream: IO[str] | None) -> str:
    told = ""
    while stream is not None and not told.endswith(text) and (letter := stream.read(1)):
        told += letter
    return told


class BackfillBesideWriters(BackfillOfRows):
    """The same while clients write 500 rows in a second: the time is what 99 of 100 writes took at most.

    Beside it, the longest that one of them waited, and the time of the work itself.
    """

    def __init__(self, server: PostgresServer, directory: Path, rows: int) -> None:
        super().__init__(server, directory, rows, trigger=True)
        key = f"1 + floor({rows} * random())::int"
        # In a query of its own, for else the key would be another one for each row, and all rows be looked at.
        write = f"UPDATE demo_item SET name = 'written ' || id, touched = touched + 1 WHERE id = (SELECT {key})"  # noqa: S608 - a number
        self._waits = Waits()
        self._load = Load([write], _WRITES_HZ / _WRITERS, _WRITERS)

    @property
    def name(self) -> str:
        """Such as `backfill/1000000-rows/writes`."""
        return f"backfill/{self.rows}-rows/writes"

    def _run(self, fill: Callable[[], float]) -> Run:
        duration_s = super()._run(fill).duration_s
        waits = self._waits
        return Run(waits.share_s(0.99), {}, {"longest": waits.longest_s, "all-rows": duration_s})

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with serving(self._database.dsn, self._load) as self._waits:
            yield


class BackfillOfMoreRows:
    """What a row costs in a large table beside one in a small table, as the time of a million; both sides are ours.

    Beside it, the same of one UPDATE.

    Args:
        small: the table of the peer.
        large: that of ours.
    """

    def __init__(self, small: BackfillOfRows, large: BackfillOfRows) -> None:
        self._small = small
        self._large = large

    @property
    def name(self) -> str:
        """Such as `backfill/3000000-beside-300000`."""
        return f"backfill/{self._large.rows}-beside-{self._small.rows}"

    def prepare(self) -> None:
        """Leave it to the runs: each puts its own table back."""

    def run_ours(self) -> Run:
        """Fill the large one."""
        return self._run(self._large)

    def run_peer(self) -> Run:
        """Fill the small one."""
        return self._run(self._small)

    @staticmethod
    def _run(table: BackfillOfRows) -> Run:
        table.prepare()
        duration_s = table.run_ours().duration_s
        table.prepare()
        # What the server itself makes of so many rows.
        in_one_s = table.run_peer().duration_s
        million = table.rows / 1_000_000
        return Run(duration_s / million, {}, {"in-one": in_one_s / million})
