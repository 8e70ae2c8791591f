"""What is left of a look at a server that is given up while it still connects."""

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import pytest

from smooth_migrations.protocol import OtherAliases
from smooth_orchestrator.config import Atomicity
from smooth_orchestrator.plan import Phase, Target
from smooth_orchestrator.reads import reading
from smooth_orchestrator.run import TargetRun
from tests.support.postgres_database import PostgresDatabase

if TYPE_CHECKING:
    from smooth_orchestrator.fleet import Fleet

# Of asyncio's loop: within so many a connection of this machine to itself is there.
_TURNS = 30
_PATIENCE_S = 30

pytestmark = pytest.mark.anyio


def _item(database: PostgresDatabase) -> TargetRun:
    target = Target(
        name="primary",
        project="one",
        alias="default",
        vendor="postgresql",
        identity="postgresql:localhost:5432/one",
        atomicity=Atomicity.AUTO,
        expand_contract=True,
        lock_timeout_ms=2000,
        bind_default=True,
        other_aliases=OtherAliases.REFUSE,
        asyncpg=database.asyncpg,
    )
    return TargetRun(target, Phase("all", 0, (), 1))


async def test_a_look_that_is_given_up_at_any_moment_leaves_neither_an_error_nor_a_session(
    pg_database: PostgresDatabase,
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context))
    item = _item(pg_database)

    async def look() -> None:
        # Nothing goes through a worker here.
        async with reading(item, cast("Fleet", None)) as read:
            while True:
                await read("SELECT 1")

    for turns in range(_TURNS):
        looking = asyncio.create_task(look())
        for _ in range(turns):
            await asyncio.sleep(0)
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
    with anyio.fail_after(_PATIENCE_S):
        while pg_database.server.sessions(pg_database.name):
            await anyio.lowlevel.checkpoint()
    gc.collect()

    assert told == []
