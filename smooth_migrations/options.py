"""How a call behaves."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from smooth_migrations.protocol.values import OtherAliases
from smooth_migrations.undo.transaction import Limits

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """How a call behaves.

    Args:
        limits: time-outs of each statement.
        lock_retries: how often the open transaction is tried again after a lock failure.
        compensated: commit after each migration, and reverse committed ones on failure.
        together: how many migrations of what was empty have one commit then.
        may_step: do so too when it turns out that one transaction cannot hold the migrations.
        bind_default: make the alias `default` the target's connection meanwhile.
        other_aliases: what happens to a query that reaches another alias.
        application_name: of our session, in `pg_stat_activity`.
        call_id: what the call is called in the database's journal; with a colon where it belongs to no deploy's run.
        compares: compare the schema after an undo with what it was before, also where a killed call is taken back.
        expands: hold back what the release still running could not live with.
        sees_new: let each statement of the open transaction see what was committed before it, whatever the default.
        pause: waits between attempts; injected for tests.
    """

    limits: Limits = field(default_factory=Limits)
    lock_retries: int = 0
    compensated: bool = False
    together: int = 1
    may_step: bool = True
    bind_default: bool = False
    other_aliases: OtherAliases = OtherAliases.ALLOW
    application_name: str | None = None
    call_id: str = field(default_factory=lambda: f"call:{uuid4().hex}")
    compares: bool = True
    expands: bool = False
    sees_new: bool = False
    pause: Callable[[float], None] = time.sleep
