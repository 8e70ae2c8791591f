"""Which servers of a plan speak TLS, and which of them a coordinator reaches whose workers are on other machines.

One that speaks none is not asked again for each session. Those that are not reached are left to the workers.
"""

import os
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum, auto
from typing import Any, Final

import anyio
import asyncpg

from smooth_orchestrator.plan import Plan, Target

__all__ = ["as_reached"]

_TIMEOUT_S: Final = 5.0
# PostgreSQL manual, "Message Formats": SSLRequest, answered by one byte.
_ASKS_FOR_TLS: Final = struct.pack("!ii", 8, 80877103)
_NO_TLS: Final = b"N"
# For fewer sessions than these databases have the question takes longer than it saves.
_MANY: Final = 8


class _Answer(Enum):
    AWAY = auto()
    REACHED = auto()
    WITHOUT_TLS = auto()


async def as_reached(plan: Plan) -> Plan:
    """Return a plan without the connections that cannot be made from here, where its workers are elsewhere.

    And without the question for TLS at each session of a server that speaks none. One attempt for each server, closed
    at once; where the workers are on this machine, for each that has many databases. A server that answers, whatever it
    says, is reached.
    """
    firsts: dict[str, Mapping[str, Any]] = {}
    targets = [target for phase in plan.phases for target in phase.targets if target.asyncpg is not None]
    counts = Counter(target.server for target in targets)
    for target in targets:
        if target.asyncpg is not None and (plan.is_remote or counts[target.server] >= _MANY):
            firsts.setdefault(target.server, target.asyncpg)
    answers: dict[str, _Answer] = {}

    async def knock(server: str, options: Mapping[str, Any]) -> None:
        answers[server] = await _knock(options, connects=plan.is_remote)

    async with anyio.create_task_group() as group:
        for server, options in firsts.items():
            group.start_soon(knock, server, options)

    def reached(target: Target) -> Target:
        answer = answers.get(target.server) if target.asyncpg is not None else None
        if answer is _Answer.AWAY and plan.is_remote:
            return replace(target, asyncpg=None, is_plain=False)
        if answer is _Answer.WITHOUT_TLS and _asks_for_tls_if_there_is(target.asyncpg or {}):
            # What asyncpg makes for TLS, and throws away again, is most of what a session costs this process.
            return replace(target, asyncpg={**(target.asyncpg or {}), "ssl": "disable"})
        return target

    phases = tuple(replace(phase, targets=tuple(map(reached, phase.targets))) for phase in plan.phases)
    return replace(plan, phases=phases)


def _asks_for_tls_if_there_is(options: Mapping[str, Any]) -> bool:
    return bool(options.get("ssl", os.environ.get("PGSSLMODE", "prefer")) == "prefer")


async def _knock(options: Mapping[str, Any], *, connects: bool) -> _Answer:
    host, port = options.get("host"), options.get("port")
    if isinstance(host, str) and isinstance(port, int) and not host.startswith("/"):
        try:
            with anyio.fail_after(_TIMEOUT_S), suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                async with await anyio.connect_tcp(host, port) as stream:
                    await stream.send(_ASKS_FOR_TLS)
                    if await stream.receive(1) == _NO_TLS:
                        return _Answer.WITHOUT_TLS
        except (OSError, TimeoutError):
            return _Answer.AWAY
    if not connects:
        return _Answer.REACHED
    try:
        connection = await asyncpg.connect(**{**options, "timeout": _TIMEOUT_S})
    except (OSError, TimeoutError):
        return _Answer.AWAY
    except (asyncpg.PostgresError, asyncpg.InterfaceError):
        return _Answer.REACHED
    connection.terminate()
    return _Answer.REACHED
