"""Which servers of a plan a coordinator reaches whose workers are on other machines: those do what it cannot."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import anyio
import asyncpg

from smooth_orchestrator.plan import Plan, Target

__all__ = ["as_reached"]

_TIMEOUT_S: Final = 5.0


async def as_reached(plan: Plan) -> Plan:
    """Return a plan without the connections that cannot be made from here, where its workers are elsewhere.

    One attempt for each server, closed at once. A server that answers, whatever it says, is reached.
    """
    if not plan.is_remote:
        return plan
    firsts: dict[str, Mapping[str, Any]] = {}
    for target in (target for phase in plan.phases for target in phase.targets):
        if target.asyncpg is not None:
            firsts.setdefault(target.server, target.asyncpg)
    away: set[str] = set()

    async def knock(server: str, options: Mapping[str, Any]) -> None:
        try:
            connection = await asyncpg.connect(**{**options, "timeout": _TIMEOUT_S})
        except (OSError, TimeoutError):
            away.add(server)
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            return
        else:
            connection.terminate()

    async with anyio.create_task_group() as group:
        for server, options in firsts.items():
            group.start_soon(knock, server, options)

    def reached(target: Target) -> Target:
        return replace(target, asyncpg=None, is_plain=False) if target.server in away else target

    phases = tuple(replace(phase, targets=tuple(map(reached, phase.targets))) for phase in plan.phases)
    return replace(plan, phases=phases)
