"""Stand between a client and a server, and lose an answer when told to."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import SocketAttribute, SocketStream

__all__ = ["LossyRelay"]


class LossyRelay:
    """Forward TCP connections to a server on this machine, until what is said decides otherwise.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.lost = 0
        self._lose_answer_to: bytes | None = None
        self._stay_away = False
        self._server_port = port
        self._accepting = True
        self._losing = False
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = await self._stack.enter_async_context(await anyio.create_tcp_listener(local_host="127.0.0.1"))
        tasks = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(tasks.cancel_scope.cancel)
        self.port = int(listener.extra(SocketAttribute.local_port))  # noqa: S610 - nothing of Django
        tasks.start_soon(listener.serve, self._relay)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._stack.__aexit__(kind, error, trace)

    def lose_answer_to(self, request: bytes, *, stay_away: bool = False) -> None:
        """Let the next request that contains this reach the server, and close the connection in place of its answer.

        Args:
            request: the bytes to wait for.
            stay_away: accept no connection after that.
        """
        self._lose_answer_to, self._stay_away = request, stay_away

    async def _relay(self, client: SocketStream) -> None:
        async with client:
            if not self._accepting:
                return
            server = await anyio.connect_tcp("127.0.0.1", self._server_port)
            async with server, anyio.create_task_group() as ways:
                ways.start_soon(self._answers, server, client, ways.cancel_scope)
                await self._requests(client, server)
                ways.cancel_scope.cancel()

    async def _requests(self, client: SocketStream, server: SocketStream) -> None:
        try:
            async for data in client:
                if self._lose_answer_to and self._lose_answer_to in data:
                    self._lose_answer_to, self._losing = None, True
                await server.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return

    async def _answers(self, server: SocketStream, client: SocketStream, connection: anyio.CancelScope) -> None:
        try:
            async for data in server:
                if self._losing:
                    self._losing = False
                    self.lost += 1
                    self._accepting = not self._stay_away
                    break
                await client.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        connection.cancel()
