"""The lease of a deploy, kept alive beside the run: whoever has lost it writes nothing, and so decides nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio

from smooth_migrations.protocol import ErrorInfo
from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Claim, Fenced
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.resting import keep_leases
from smooth_orchestrator.run import Run

__all__ = ["LOST", "holding_lease"]

LOST: Final = frozenset({Fenced.code, "LeaseLost"})
"""What an error is called that found another run to have been at work since: on the deploy, or on a database."""

_BEAT_S: Final = 5.0
_BEAT_AGAIN_S: Final = 1.0


@asynccontextmanager
async def holding_lease(run: Run, fleet: Fleet) -> AsyncIterator[None]:
    """Hold the lease of a run's deploy in its journal, and what it keeps on databases, for the length of a context.

    When it is lost the run fails; a decision that was written before is carried out all the same.

    Raises:
        Locked: another run holds it.
        JournalError: the journal cannot be asked.
    """
    claim = await run.journal.acquire(run.plan.name, Owner.here(run.run_id))
    get_logger().info(EventName.LEASE_ACQUIRED, epoch=claim.epoch, owner=run.run_id)
    async with anyio.create_task_group() as group:
        group.start_soon(_beat, run, claim)
        group.start_soon(keep_leases, run, fleet)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
    # A journal that is away lets it expire.
    with suppress(JournalError):
        await run.journal.release()


async def _beat(run: Run, claim: Claim) -> None:
    pause_s = _BEAT_S
    while True:
        await anyio.sleep(pause_s)
        try:
            await run.journal.renew()
        except Fenced as error:
            failure = ErrorInfo(error.code, error.message, hint=error.hint)
            get_logger().error(EventName.LEASE_LOST, epoch=claim.epoch, error=failure)
            if not run.decided:
                run.fail(failure)
            return
        except JournalError:
            # Whether it was lost meanwhile is for the next record to say.
            pause_s = _BEAT_AGAIN_S
        else:
            pause_s = _BEAT_S
