"""A deploy that would fill a server's lock table, which every other session of the server would feel, is refused."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from smooth_orchestrator.config import load
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.plan import projects_of, resolve
from smooth_orchestrator.preflight import inspect_targets
from smooth_orchestrator.room import room_refusals
from smooth_orchestrator.run import Run
from smooth_orchestrator.secrets import Masker
from smooth_orchestrator.testing import MemoryJournal
from smooth_orchestrator.transport import LocalTransport
from tests.support import deploys
from tests.support.deploys import small_fleet
from tests.support.many_databases import many_databases
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import THROW_AWAY, PostgresServer
from tests.support.small_migrations import ITEM, NOTE
from tests.support.small_project import SmallProject, migration

_TABLES = 120
_FIELDS = "('id', models.BigAutoField(primary_key=True)), ('name', models.CharField(max_length=40, unique=True))"
_MANY_TABLES = migration(
    *(f"migrations.CreateModel('Box{number}', [{_FIELDS}])" for number in range(_TABLES)),
    after=[("demo", "0001_item")],
)
_MESSAGE = re.compile(r"(\d+) lock-table entries are needed and about (\d+) are free")
_HINT = re.compile(r"set max_locks_per_transaction to at least (\d+) \(now 10\) and restart the server")


@pytest.fixture
def narrow_server() -> Iterator[PostgresServer]:
    """A server with room for 100 entries, by its settings."""
    with PostgresServer(max_connections=10, max_prepared_transactions=0, settings=THROW_AWAY) as server:
        _set_locks(server, 10)
        yield server


@pytest.mark.long
def test_a_release_too_big_for_the_lock_table_is_refused_and_passes_with_the_setting_that_was_named(
    tmp_path: Path, narrow_server: PostgresServer, pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, narrow_server, pg_server, {"demo.0002_boxes": _MANY_TABLES}) as fleet:
        before = fleet.dumps()
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (3, "refused"), outcome.stderr
        (finding,) = outcome.report["errors"]
        assert finding["place"] == f"localhost:{narrow_server.port}"
        message, hint = _MESSAGE.fullmatch(finding["message"]), _HINT.fullmatch(finding["hint"])
        assert message, finding
        assert hint, finding
        assert int(message[1]) > 5 * _TABLES > 100 >= int(message[2])
        assert outcome.named("migration.started") == []
        assert fleet.dumps() == before

        _set_locks(narrow_server, int(hint[1]))
        outcome = fleet.deploy()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr
        assert _tables(fleet) == _TABLES


async def test_a_server_that_the_coordinator_cannot_reach_itself_is_read_through_a_worker(
    tmp_path: Path, narrow_server: PostgresServer, pg_server: PostgresServer
) -> None:
    with small_fleet(tmp_path, narrow_server, pg_server, {"demo.0002_boxes": _MANY_TABLES}) as fleet:
        fleet.databases["default"]["OPTIONS"] = {"keepalives": 1}
        file = load(tmp_path / "deploy.toml", os.environ | {fleet.variable: json.dumps(fleet.databases)})
        async with Fleet(LocalTransport(), Masker()) as workers:
            plan = resolve(file, await workers.ask(projects_of(file)))
            await workers.set_up()
            run = Run(plan, "friday", MemoryJournal())
            await inspect_targets(run, workers)
            assert [item.target.asyncpg is None for item in run.targets] == [True, True, False]
            (finding,) = await room_refusals(run, workers)
        assert finding.place == f"localhost:{narrow_server.port}"
        assert _MESSAGE.fullmatch(finding.message), finding


def test_what_is_refused_would_have_failed(tmp_path: Path, narrow_server: PostgresServer) -> None:
    with temporary_database(narrow_server) as database:
        item = migration(f"migrations.CreateModel('Item', [{_FIELDS}])")
        migrations = {"demo.0001_item": item, "demo.0002_boxes": _MANY_TABLES}
        stock = SmallProject(tmp_path, {"default": database.django}, migrations).run("migrate")
        assert stock.returncode == 1
        assert 'You might need to increase "max_locks_per_transaction"' in stock.stderr


def test_a_server_is_spared_as_the_plan_says(tmp_path: Path, pg_server: PostgresServer) -> None:
    release = {"demo.0001_item": ITEM, "demo.0002_note": NOTE}
    with many_databases(tmp_path, [pg_server], 8, release) as many:
        many.plan('gate = ["sh", "-c", "until [ -e go ]; do sleep 0.05; done"]')
        plan = many.directory / "deploy.toml"
        plan.write_text(f'{plan.read_text()}\n[servers."localhost:{pg_server.port}"]\nmax_connections = 5\n')
        with many.running() as run:
            run.wait_for("gate.started")
            assert sum(pg_server.sessions(each.name) for each in many.databases) <= 5
            (many.directory / "go").touch()
            outcome = run.finish()
        assert (outcome.exit_code, outcome.report["outcome"]) == (0, "committed"), outcome.stderr[-3000:]
        assert many.new() == 8


def test_no_more_sessions_commit_at_once_than_the_plan_says(tmp_path: Path) -> None:
    settings = {"log_connections": "on", "log_disconnections": "on", "log_line_prefix": "%p %d| "}
    server = PostgresServer(settings={**THROW_AWAY, **settings}, max_prepared_transactions=24)
    with server, many_databases(tmp_path, [server], 24, {"demo.0001_item": ITEM, "demo.0002_note": NOTE}) as many:
        plan = many.directory / "deploy.toml"
        plan.write_text(f'{plan.read_text()}\n[servers."localhost:{server.port}"]\nmax_connections = 5\n')
        log = server.directory / "server.log"
        before = log.stat().st_size

        assert many.run("deploy").exit_code == 0

        assert many.new() == 24
        text = log.read_bytes()[before:].decode(errors="replace")
        # Besides those that are counted, each worker may have one that looks or renews a lease.
        assert _most_at_once(text, {each.name for each in many.databases}) <= 8


def _most_at_once(log: str, databases: set[str]) -> int:
    most, at_once = 0, set[str]()
    for line in log.splitlines():
        session, _, text = line.partition("| LOG:  ")
        if session.partition(" ")[2] in databases:
            if text.startswith("connection authorized"):
                at_once.add(session)
            elif text.startswith("disconnection"):
                at_once.discard(session)
            most = max(most, len(at_once))
    return most


def _set_locks(server: PostgresServer, count: int) -> None:
    with server.connect() as session:
        session.execute(f"ALTER SYSTEM SET max_locks_per_transaction = {count}".encode())
    server.restart()


def _tables(fleet: deploys.Fleet) -> int:
    with fleet.first.connect() as session:
        row = session.execute("SELECT count(*) FROM pg_tables WHERE tablename LIKE 'demo\\_box%'").fetchone()
    assert row is not None
    return int(row[0])
