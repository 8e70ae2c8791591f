import asyncio
import gc
import socket
from contextlib import suppress

import asyncpg
import pytest

from smooth_orchestrator.orphans import overlook_lost_connections


async def _give_up_connecting() -> None:
    """Cancel the opening of a connection at each of its steps, to a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        _, port = listening.getsockname()
        for steps in range(12):
            connecting = asyncio.create_task(asyncpg.connect(host="127.0.0.1", port=port, user="a", database="b"))
            for _ in range(steps):
                await asyncio.sleep(0)
            connecting.cancel()
            with suppress(asyncio.CancelledError):
                await connecting
            del connecting
            # The transport is closed a step later.
            await asyncio.sleep(0)
            gc.collect()


async def _fail_unseen() -> None:
    asyncio.get_running_loop().create_future().set_exception(LookupError("nobody looked"))
    gc.collect()


async def _fail_unseen_as_a_task() -> None:
    async def lose() -> None:
        raise ConnectionError("nobody waited")

    task = asyncio.create_task(lose())
    await asyncio.sleep(0)
    del task
    gc.collect()


def test_a_connection_that_was_given_up_is_no_news_and_all_else_that_fails_unseen_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def all_of_them(*, overlooks: bool) -> None:
        if overlooks:
            overlook_lost_connections()
        await _give_up_connecting()
        await _fail_unseen()
        await _fail_unseen_as_a_task()

    told = {"Future exception was never retrieved", "Task exception was never retrieved"}
    for overlooks, errors in ((False, {LookupError, ConnectionError}), (True, {LookupError})):
        caplog.clear()
        asyncio.run(all_of_them(overlooks=overlooks))
        seen = [(record.getMessage().partition("\n")[0], record.exc_info) for record in caplog.records]
        assert {message for message, _ in seen} == told
        futures = {info[0] for message, info in seen if info and message.startswith("Future")}
        assert futures == errors
