"""Whether each PostgreSQL server has room for the run: free connections, and free entries in its lock table."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

from smooth_migrations.protocol import OtherAliases
from smooth_orchestrator.config import Atomicity, CommitUnit, Tier
from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.fleet import Fleet, at_work_at_most
from smooth_orchestrator.plan import Phase
from smooth_orchestrator.reads import Unreadable, reading
from smooth_orchestrator.run import Run, TargetRun

__all__ = ["ServerRoom", "lock_entries_needed", "room_refusals", "sessions_needed", "shortages"]

# What others take of the table changes by the second; a setting that would do for today's moment alone does not.
_STEP = 32
# Migrations of what is empty to one commit: what each locks is let go of with it (max_locks_per_transaction).
_TOGETHER = 8

# Sessions of other roles have no backend_type for a role without pg_read_all_stats; the reading one is not counted.
# An entry is one object, in however many modes and by however many sessions it is locked. Locks of the fast path are
# with their sessions, not in the table (PostgreSQL manual, pg_locks).
_ROOM = """
    SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
           - coalesce(current_setting('reserved_connections', true)::int, 0)
           - (SELECT count(*)::int FROM pg_stat_activity
              WHERE datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'
                AND pid <> pg_backend_pid()) AS free_connections,
           current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int AS slots,
           current_setting('max_locks_per_transaction')::int AS locks_per_slot,
           current_setting('max_prepared_transactions')::int
           - (SELECT count(*)::int FROM pg_prepared_xacts) AS free_prepared,
           (SELECT count(*)::int FROM (
                SELECT DISTINCT locktype, database, relation, page, tuple, virtualxid, transactionid::text,
                       classid, objid, objsubid
                FROM pg_locks WHERE NOT fastpath) AS objects) AS locked_objects
"""


@dataclass(frozen=True, slots=True)
class ServerRoom:
    """What a server has.

    Its lock table has room for `max_locks_per_transaction * (max_connections + max_prepared_transactions)` objects, for
    all databases together (PostgreSQL manual, max_locks_per_transaction). The server allots some more for its own
    processes, which is left to them and to everybody else.

    Args:
        free_connections: that an ordinary role can still open.
        slots: how many transactions the table is made for: max_connections + max_prepared_transactions.
        locks_per_slot: max_locks_per_transaction.
        free_prepared: how many more transactions it can keep prepared.
        locked_objects: entries taken already.
        at_work_at_most: how many targets may be at work at a time; None where the plan does not limit it.
    """

    free_connections: int
    slots: int
    locks_per_slot: int
    free_prepared: int
    locked_objects: int
    at_work_at_most: int | None = None

    @property
    def free_entries(self) -> int:
        """How many more objects can be locked."""
        return max(self.slots * self.locks_per_slot - self.locked_objects, 0)

    def locks_per_slot_for(self, entries: int) -> int:
        """Return the max_locks_per_transaction with which so many entries would be free, in round numbers."""
        return math.ceil((entries + self.locked_objects) / self.slots / _STEP) * _STEP


async def room_refusals(run: Run, fleet: Fleet) -> tuple[Mistake, ...]:
    """Return which servers have too little room for what the run will hold. Reads only, once a server.

    Where the plan leaves the tier open, targets for whose transactions no slot is free are held open instead.

    Args:
        run: inspected already.
        fleet: whose workers read of a server that asyncpg does not reach.
    """
    servers: dict[str, list[TargetRun]] = defaultdict(list)
    for item in run.targets:
        if item.target.vendor == "postgresql" and item.has_work:
            servers[item.target.server].append(item)
    findings: list[Mistake] = []
    for server, items in servers.items():
        room = await _read_room(items, fleet)
        if room is not None:
            if run.plan.minimum_atomicity is not Tier.TWO_PHASE:
                _hold_open(items, room.free_prepared)
            if (most := run.plan.servers.get(server)) is not None:
                free = min(room.free_connections, most)
                room = replace(room, free_connections=free, at_work_at_most=at_work_at_most(most))
            is_short = sessions_needed(items, room.at_work_at_most) > room.free_connections
            if run.plan.is_remote or is_short:
                _prepare_early(items, has_standby=not is_short)
            by_phase = run.plan.commit is CommitUnit.PHASE
            _gather(items, room, by_phase=by_phase)
            findings += shortages(server, room, items, by_phase=by_phase)
    return tuple(findings)


def shortages(server: str, room: ServerRoom, items: Sequence[TargetRun], *, by_phase: bool) -> Iterator[Mistake]:
    """Yield what a server has too little of. Pure.

    Args:
        server: host and port.
        room: what it has.
        items: its targets that have work, in the order of the phases.
        by_phase: whether each phase is committed before the next one begins.
    """
    sessions = sessions_needed(items, room.at_work_at_most)
    if room.free_connections < sessions:
        yield Mistake(
            server,
            f"{sessions} more connections are needed and {max(room.free_connections, 0)} are free",
            "raise max_connections, or lower parallel",
        )
    prepared = [item for item in items if item.tier is Tier.TWO_PHASE]
    if room.free_prepared < len(prepared):
        yield Mistake(
            server,
            f"{len(prepared)} transactions are to be prepared and {max(room.free_prepared, 0)} slots are free",
            "raise max_prepared_transactions and restart the server",
        )
    entries = lock_entries_needed(items, by_phase=by_phase)
    if room.free_entries < entries:
        yield Mistake(
            server,
            f"{entries} lock-table entries are needed and about {room.free_entries} are free",
            f"set max_locks_per_transaction to at least {room.locks_per_slot_for(entries)} (now {room.locks_per_slot}) "
            "and restart the server",
        )


def _hold_open(items: Sequence[TargetRun], slots: int) -> None:
    for item in [item for item in items if item.tier is Tier.TWO_PHASE][max(slots, 0) :]:
        if item.target.atomicity is Atomicity.AUTO:
            item.tier = Tier.HELD_OPEN


def _gather(items: Sequence[TargetRun], room: ServerRoom, *, by_phase: bool) -> None:
    """Let several migrations of what is empty have one commit, where the locks of all take half of the room at most."""
    gathering = [item for item in items if item.tier is Tier.COMPENSATED and _may_gather(item)]
    for together in (_TOGETHER, 1):
        for item in gathering:
            item.together = together
        if 2 * lock_entries_needed(items, by_phase=by_phase) <= room.free_entries:
            return


def _may_gather(item: TargetRun) -> bool:
    """Return whether nobody but its own session can look for what a migration has not committed yet."""
    is_free = item.target.atomicity is Atomicity.AUTO and item.target.other_aliases is OtherAliases.REFUSE
    return is_free and item.found is not None and item.found.before.is_empty


def _prepare_early(items: Sequence[TargetRun], *, has_standby: bool) -> None:
    for item in items:
        item.prepares_early = item.tier is Tier.TWO_PHASE
        item.has_standby = has_standby


def sessions_needed(items: Sequence[TargetRun], at_most: int | None = None) -> int:
    """Return how many connections a server's targets need at the worst moment, with so many at work at most. Pure.

    What is held open keeps one until the decision. What is committed or prepared at once has one while it is at work,
    each target at work is watched by one reading session, and one renews the leases of all that is prepared.
    """
    passing = [item for item in items if item.prepares_early or item.tier is Tier.COMPENSATED]
    kept = len(items) - len(passing)
    renewing = int(any(item.prepares_early for item in items))
    return kept + _at_work(passing, at_most) + renewing + _at_work(items, at_most)


def _at_work(items: Sequence[TargetRun], at_most: int | None) -> int:
    counts = (min(phase.parallel, len(members), at_most or len(members)) for phase, members in _by_phase(items))
    return max(counts, default=0)


def lock_entries_needed(items: Sequence[TargetRun], *, by_phase: bool) -> int:
    """Return how many lock-table entries a server's targets take at the worst moment. Pure.

    What is held open is held until the decision, so it adds up: over all phases, or over one where each is committed by
    itself. A compensated target ends a transaction with every migration, or every few of them, and comes before its
    phase's held ones: the greatest migration of each counts so many times, of as many as may be at work together.
    """
    held = worst = 0
    for phase, of_phase in _by_phase(items):
        passing = sorted((_each(item) for item in of_phase if item.tier is Tier.COMPENSATED), reverse=True)
        worst = max(worst, held + sum(passing[: phase.parallel]))
        held += sum(_all(item) for item in of_phase if item.tier is not Tier.COMPENSATED)
        worst = max(worst, held)
        if by_phase:
            held = 0
    return worst


def _by_phase(items: Sequence[TargetRun]) -> list[tuple[Phase, list[TargetRun]]]:
    phases = {item.phase.index: item.phase for item in items}
    return [(phase, [item for item in items if item.phase.index == index]) for index, phase in sorted(phases.items())]


def _all(item: TargetRun) -> int:
    return item.found.lock_entries if item.found else 0


def _each(item: TargetRun) -> int:
    return min(item.together * item.found.lock_entries_each, item.found.lock_entries) if item.found else 0


async def _read_room(items: Sequence[TargetRun], fleet: Fleet) -> ServerRoom | None:
    """Ask a server, through the first of its targets that answers; None where nobody can tell."""
    for item in items:
        try:
            async with reading(item, fleet) as read:
                row = (await read(_ROOM))[0]
        except Unreadable:
            continue
        return ServerRoom(**{field.name: int(row[field.name]) for field in fields(ServerRoom) if field.name in row})
    return None
