"""A server that crashes while an empty database is migrated one migration at a time, of which few wait for the disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support.fault_proxy import Fault, FaultProxy, Harm
from tests.support.many_databases import ManyDatabases, many_databases
from tests.support.postgres_server import PostgresServer
from tests.support.small_migrations import ITEM
from tests.support.small_project import migration

_COUNT: Final = 6
_APPLIED: Final = "SELECT name FROM django_migrations WHERE app = 'demo' ORDER BY id"
_COLUMNS: Final = (
    "SELECT column_name FROM information_schema.columns WHERE table_name = 'demo_item' AND column_name LIKE 'extra%' "
    "ORDER BY 1"
)
_COUNTED: Final = """
import os


def count(apps, editor):
    with open(os.environ["SMALL_COUNTS"], "a") as file:
        print(%r, file=file)
"""


def _release() -> dict[str, str]:
    names = ["0001_item", *(f"{number:04}_extra" for number in range(2, _COUNT + 1))]
    added = {
        f"demo.{name}": migration(
            f"migrations.AddField('item', 'extra_{number}', models.IntegerField(null=True))",
            "migrations.RunPython(count)",
            functions=_COUNTED % name,
            after=[("demo", names[number - 2])],
        )
        for number, name in enumerate(names[1:], start=2)
    }
    return {"demo.0001_item": ITEM} | added


@pytest.fixture(scope="module")
def server(pg_programs: Path | None) -> Iterator[PostgresServer]:
    """A server that writes what nobody waits for long after it was committed."""
    with PostgresServer(settings={"wal_writer_delay": "10s", "fsync": "off"}, programs=pg_programs) as server:
        yield server


@contextmanager
def _empty(server: PostgresServer, directory: Path) -> Iterator[tuple[ManyDatabases, FaultProxy]]:
    with many_databases(directory, [server], 1, _release()) as many, FaultProxy(server.port) as proxy:
        many.make_empty()
        many.reach_through(proxy.port)
        plan = many.directory / "deploy.toml"
        wanted = 'minimum_atomicity = "compensated"\natomicity = "compensated"\nsettle_timeout = "20s"'
        plan.write_text(plan.read_text().replace('minimum_atomicity = "two_phase"', wanted))
        yield many, proxy


@pytest.mark.long
def test_what_was_voted_for_is_there_after_a_crash(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "counts"
    monkeypatch.setenv("SMALL_COUNTS", str(counts))
    with _empty(server, tmp_path) as (many, proxy):
        delayed = proxy.arm(Fault("SET LOCAL synchronous_commit = off$", Harm.DELAYED, nth=_COUNT - 2))
        # The decision stands when the first commit after the last question comes.
        crash = Fault("^COMMIT$", Harm.DELAYED, meanwhile=lambda: server.restart("immediate"))
        proxy.arm(Fault("^SELECT 1$", Harm.DELAYED, meanwhile=lambda: proxy.arm(crash)))
        outcome = many.run("deploy")
        delayed.wait()
        crash.wait()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert [len(each) for each in many.rows(_APPLIED)] == [_COUNT]
        assert many.rows(_COLUMNS) == [[(f"extra_{number}",) for number in range(2, _COUNT + 1)]]
        # However often that was tried, it is told once.
        assert outcome.stderr.count('"recover.started"') == 1
        # What had been lost would have been run again.
        assert counts.read_text().split() == [f"{number:04}_extra" for number in range(2, _COUNT + 1)]


def test_a_crash_in_the_middle_leaves_it_empty(
    server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMALL_COUNTS", str(tmp_path / "counts"))
    with _empty(server, tmp_path) as (many, proxy):
        before = many.dumps()
        crash = Fault("^ALTER TABLE .*extra_5", Harm.DELAYED, meanwhile=lambda: server.restart("immediate"))
        proxy.arm(crash)
        outcome = many.run("deploy")
        crash.wait()
        # A server that is still starting cannot tell what was committed.
        assert outcome.exit_code in {1, 4}, outcome.stderr[-3000:]
        if outcome.exit_code == 4:
            assert many.run("recover").report["outcome"] == "rolled_back"
        assert many.dumps() == before
        assert many.run("deploy").exit_code == 0
        assert [len(each) for each in many.rows(_APPLIED)] == [_COUNT]
