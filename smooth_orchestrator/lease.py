"""The lease of a deploy, kept alive beside the run: whoever has lost it writes nothing, and so decides nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import anyio

from smooth_migrations.protocol import ErrorInfo
from smooth_migrations.protocol.owner import Owner
from smooth_orchestrator.errors import JournalError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.journal import Claim, Fenced, Journal
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.resting import keep_leases
from smooth_orchestrator.run import Run

__all__ = ["LOCKED", "LOST", "holding_lease"]

LOST: Final = frozenset({Fenced.code, "LeaseLost"})
"""What an error is called that found another run to have been at work since: on the deploy, or on a database."""
LOCKED: Final = LOST | {"LeaseHeld", "SessionLeft"}
"""What one is called that found another run at work."""

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
    held = _Held(run.journal, claim)
    async with anyio.create_task_group() as group:
        group.start_soon(_beat, run, held)
        group.start_soon(keep_leases, run, fleet)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
    # A journal that is away lets it expire.
    with suppress(JournalError):
        # One that was frozen may have ended before its next beat.
        await held.renew()
        await run.journal.release()


@dataclass(slots=True)
class _Held:
    """A lease, and why it is not ours any more."""

    journal: Journal
    claim: Claim
    lost: ErrorInfo | None = None

    async def renew(self) -> None:
        """Put its expiry off, or tell once that somebody else has it. Raises `JournalError` when nobody can say."""
        if self.lost is not None:
            return
        try:
            await self.journal.renew()
        except Fenced as error:
            self.lost = ErrorInfo(error.code, error.message, hint=error.hint)
            get_logger().error(EventName.LEASE_LOST, epoch=self.claim.epoch, error=self.lost)


async def _beat(run: Run, held: _Held) -> None:
    pause_s = _BEAT_S
    while held.lost is None:
        await anyio.sleep(pause_s)
        try:
            await held.renew()
        except JournalError:
            # Whether it was lost meanwhile is for the next record to say.
            pause_s = _BEAT_AGAIN_S
        else:
            pause_s = _BEAT_S
    if not run.decided:
        run.fail(held.lost)
