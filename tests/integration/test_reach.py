"""What a coordinator finds out of the servers of a fleet's plan before it begins."""

import socket
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from smooth_migrations.protocol import DatabaseFacts
from smooth_orchestrator.config import understand
from smooth_orchestrator.plan import Plan, ProjectFacts, resolve
from smooth_orchestrator.reach import as_reached
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.anyio


def _plan(directory: Path, *options: dict[str, Any], transport: str = "procrastinate") -> Plan:
    """Return a plan, for a fleet unless told otherwise, of a database for each of these options."""
    url = "postgresql://smooth@queue.example.com/smooth"
    document = {
        "version": 1,
        "deploy": {"name": "shop", "journal": url},
        "projects": {"one": {"path": ".", "settings": "settings"}},
        "databases": {"shards": {"project": "one", "aliases": "*"}},
        "fleet": {"transport": transport, **({"queue_url": url} if transport == "procrastinate" else {})},
    }
    facts = tuple(
        DatabaseFacts(
            alias=f"shard_{number}",
            vendor="postgresql",
            identity=f"postgresql:{each['host']}:{each['port']}/{number}",
            asyncpg=each,
            is_plain=True,
        )
        for number, each in enumerate(options)
    )
    return resolve(understand(document, directory / "deploy.toml", {}), {"one": ProjectFacts(facts, has_routers=False)})


def _reached(plan: Plan) -> list[Any]:
    return [target.asyncpg for target in plan.phases[0].targets]


async def test_a_server_that_speaks_no_tls_is_not_asked_for_it_again(pg_server: PostgresServer, tmp_path: Path) -> None:
    (found,) = _reached(await as_reached(_plan(tmp_path, pg_server.asyncpg())))

    assert found["ssl"] == "disable"
    session = await asyncpg.connect(**found)
    assert await session.fetchval("SELECT 1") == 1
    await session.close()


async def test_who_wants_tls_keeps_wanting_it(
    pg_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanting = {**pg_server.asyncpg(), "ssl": "require"}

    assert _reached(await as_reached(_plan(tmp_path, wanting))) == [wanting]

    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert _reached(await as_reached(_plan(tmp_path, pg_server.asyncpg()))) == [pg_server.asyncpg()]


async def test_what_is_not_reached_is_left_to_the_machines(pg_server: PostgresServer, tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = {**pg_server.asyncpg(), "port": nobody.getsockname()[1]}

        found = _reached(await as_reached(_plan(tmp_path, away, pg_server.asyncpg())))

    assert found == [None, {**pg_server.asyncpg(), "ssl": "disable"}]


async def test_a_server_of_many_databases_is_asked_once_by_whoever_has_no_fleet(
    pg_server: PostgresServer, tmp_path: Path
) -> None:
    ours = pg_server.asyncpg()
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        away = {**ours, "port": nobody.getsockname()[1]}

        few = await as_reached(_plan(tmp_path, *[ours] * 7, transport="local"))
        many = await as_reached(_plan(tmp_path, *[ours] * 8, *[away] * 8, transport="local"))

    assert _reached(few) == [ours] * 7
    assert _reached(many) == [{**ours, "ssl": "disable"}] * 8 + [away] * 8
