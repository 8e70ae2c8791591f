"""Everything that can refuse a deploy before it touches anything, found at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import anyio

from smooth_migrations.protocol import ErrorInfo, Failed, Inspect, TargetReport
from smooth_orchestrator.config import Atomicity, CommitUnit, Tier
from smooth_orchestrator.errors import Mistake, Refused, WorkerError
from smooth_orchestrator.events import EventName
from smooth_orchestrator.fleet import Fleet
from smooth_orchestrator.gates import missing_gates
from smooth_orchestrator.glances import answers_alike, digest_of
from smooth_orchestrator.logs import get_logger
from smooth_orchestrator.plan import Phase, Target
from smooth_orchestrator.room import room_refusals
from smooth_orchestrator.run import Glance, Run, TargetRun
from smooth_orchestrator.silence import call_unless_silent, silence_s
from smooth_orchestrator.transport import Worker

__all__ = [
    "inspect_targets",
    "not_atomic",
    "only_readied",
    "pass_preflight",
    "refusals",
    "tier_reason",
    "unread",
    "warnings",
]

# Findings of a worker that could not go on.
_UNREAD = frozenset({"unreachable", "unloadable"})
# A long history takes a while to be read, and nobody waits for a lock of ours meanwhile.
_LOOK_S = 300.0
_STRENGTH = {Tier.COMPENSATED: 0, Tier.HELD_OPEN: 1, Tier.TWO_PHASE: 2}


async def inspect_targets(run: Run, fleet: Fleet) -> None:
    """Ask a worker about every target, and settle each target's tier. Reads only.

    Of targets that look the same at a glance one speaks for the others: at once if it has nothing to do, else for those
    that answer the same to all that was asked of it; none does where a finalise forbids sessions, for each has its own.
    Where a finalise asks, and none of them holds anything back, there is nothing to be asked.
    """
    asks_each = run.finalises is not None and bool(run.plan.finalise.forbid_sessions)

    async def ask(item: TargetRun) -> None:
        async with fleet.lent(item.target, keeps=False) as worker:
            await _ask(run, worker, item)
        if item.has_work:
            fleet.widen(run.plan, item.target.project)

    async def ask_of(alike: Sequence[TargetRun]) -> None:
        first, *others = alike
        await ask(first)
        found = None if asks_each else _speaks_for_others(first)
        async with anyio.create_task_group() as group:
            for item in others:
                group.start_soon(hear, item, found)

    async def hear(item: TargetRun, found: TargetReport | None) -> None:
        if found and item.glance and (not found.pending or await answers_alike(item, fleet, found.asked or ())):
            _find(item, replace(found, physical=item.glance.physical))
        else:
            await ask(item)

    quiet = [(item, item.glance) for item in run.targets if item.glance and item.glance.is_quiet]
    if run.finalises is not None and len(quiet) == len(run.targets):
        for item, seen in quiet:
            _find(item, _nothing_held_back(item.target, seen))
        return
    async with anyio.create_task_group() as group:
        for alike in _alike(run.targets):
            group.start_soon(ask_of, alike)


async def _ask(run: Run, worker: Worker, item: TargetRun) -> None:
    command = Inspect(
        id=worker.next_id(),
        database=item.name,
        alias=item.target.alias,
        back=item.back,
        finalises=run.finalises,
        expands=item.target.expand_contract,
        lock_timeout_ms=item.target.lock_timeout_ms,
        statement_timeout_ms=run.plan.statement_timeout_ms,
    )
    try:
        answer = await call_unless_silent(worker, command, max(silence_s(run.plan), _LOOK_S))
    except WorkerError as error:
        item.error = ErrorInfo(error.code, error.message, hint=error.hint)
        return
    if isinstance(answer, TargetReport) and _is_another(run, item, answer):
        item.error = ErrorInfo(
            "OtherDatabase",
            f"the machine {worker.machine} has another database by this name: its server calls that one "
            f"{answer.physical}, and the one that the coordinator sees {item.physical}",
            hint="have the settings on each machine name the coordinator's databases, or end that machine",
        )
    elif isinstance(answer, TargetReport):
        _find(item, answer)
    elif isinstance(answer, Failed):
        item.error = answer.error


def _is_another(run: Run, item: TargetRun, answer: TargetReport) -> bool:
    """Return whether a machine's settings are known to name another database than the coordinator's."""
    is_known = run.plan.is_remote and answer.physical and item.physical
    return bool(is_known) and answer.physical != item.physical


def _find(item: TargetRun, found: TargetReport) -> None:
    item.found = found
    item.ahead = _ahead(item)
    item.readied = _readied(item)
    item.leaves_steps = item.has_ahead
    item.tier = None if unread(item) else _tier(item)


def _alike(items: Sequence[TargetRun]) -> list[list[TargetRun]]:
    """Return targets in groups: those of a project that look the same at a glance, each of the others by itself."""
    groups: dict[tuple[object, ...], list[TargetRun]] = {}
    for item in items:
        seen, back = item.glance, item.back and (item.back.run_id, item.back.steps, item.back.discards)
        may_be = seen is not None and (seen.is_quiet if back is None else seen.is_settled)
        looks = (seen.version, seen.slots, seen.digest, seen.held, back) if seen and may_be else (item.name,)
        groups.setdefault((item.target.project, item.target.expand_contract, *looks), []).append(item)
    return [*groups.values()]


def _speaks_for_others(item: TargetRun) -> TargetReport | None:
    """Return what was found of a target, if Django has seen there what a glance has, and nothing is unusual."""
    found, seen = item.found, item.glance
    if found is None or seen is None or digest_of(found.applied) != seen.digest:
        return None
    is_told = not found.pending or (found.asked is not None and not found.fresh and not found.before.is_empty)
    is_unusual = found.findings or found.prepared or bool(found.contract_pending) is not bool(seen.held)
    return found if is_told and not is_unusual else None


def _nothing_held_back(target: Target, seen: Glance) -> TargetReport:
    major, minor = divmod(seen.version, 10_000)
    return TargetReport(
        id=0,
        vendor=target.vendor,
        server_version=f"{major}.{minor}",
        physical=seen.physical,
        prepared_slots=seen.slots,
    )


async def pass_preflight(run: Run, fleet: Fleet) -> None:
    """Look at every target, and refuse the run where anything stands in its way. Reads only.

    Raises:
        Refused: with every finding.
    """
    await inspect_targets(run, fleet)
    findings = (*refusals(run), *await room_refusals(run, fleet))
    if findings:
        described = [
            {"code": "refused", "message": item.message, "database": item.place, "hint": item.hint} for item in findings
        ]
        get_logger().error(EventName.PREFLIGHT_FAILED, findings=described)
        raise Refused("the preflight found what refuses this deploy", findings=findings)
    get_logger().info(
        EventName.PREFLIGHT_PASSED,
        duration_ms=run.duration_ms,
        databases=[item.name for item in run.targets],
        idle=[item.name for item in run.targets if not item.has_work],
    )


def unread(item: TargetRun) -> tuple[Mistake, ...]:
    """Return what kept a target from being looked at: nothing is known of it then. Pure."""
    found = item.found.findings if item.found else ()
    if item.error is None and not any(finding.code in _UNREAD for finding in found):
        return ()
    return tuple(_found(item))


def refusals(run: Run) -> tuple[Mistake, ...]:
    """Return what refuses the deploy: of its gates, and target by target. Looks at files alone."""
    last = run.plan.phases[-1]
    return (*missing_gates(run.plan), *_duplicates(run), *_of_targets(run, last))


def _duplicates(run: Run) -> Iterator[Mistake]:
    """Yield targets that are one database under two names which the plan could not tell to be the same."""
    seen: dict[tuple[str, str], str] = {}
    for item in run.targets:
        if item.found is None or not item.found.physical:
            continue
        key = (item.found.vendor, item.found.physical)
        if key in seen:
            yield Mistake(item.name, f"it is the same database as {seen[key]}", "leave one of the two out")
        seen.setdefault(key, item.name)


def _of_targets(run: Run, last: Phase) -> tuple[Mistake, ...]:
    return tuple(
        finding
        for item in run.targets
        for finding in (
            *_found(item),
            *_tier_refusals(run, item),
            *_unready(item),
            *_operation_refusals(item, by_phase=run.plan.commit is CommitUnit.PHASE and item.phase is not last),
        )
    )


def tier_reason(item: TargetRun) -> str:
    """Say why a target has its tier, and what runs ahead of it."""
    ahead = f"; ahead of it, outside a transaction: {', '.join(item.ahead)}" if item.ahead else ""
    readied = f"; made ready ahead of it: what {', '.join(item.readied)} needs" if item.readied else ""
    return f"{_tier_reason(item)}{ahead}{readied}"


def _tier_reason(item: TargetRun) -> str:
    if item.target.atomicity is not Atomicity.AUTO:
        return "the plan says so"
    if step := _in_the_way(item):
        return f"{step} cannot run in a transaction"
    if item.tier is Tier.TWO_PHASE:
        return "its server can keep a transaction prepared"
    if item.target.vendor != "postgresql":
        return "every pending migration can run in one transaction"
    slots = item.found.prepared_slots if item.found else 0
    return f"of the {slots} transactions that its server can keep prepared too few are free"


def warnings(run: Run, item: TargetRun) -> Iterator[str]:
    """Yield what does not refuse a deploy and should be known before one. Pure."""
    for pending in item.found.pending if item.found else ():
        yield from pending.unsafe
    if item.phase.gate and item.has_work and run.plan.commit is CommitUnit.DEPLOY:
        yield (
            f"the gate of phase {item.phase.name!r} runs while transactions are held: it does not see the new schema, "
            f"and its time counts as lock time (max_lock_hold is {run.plan.max_lock_hold_ms / 1000:g} s)"
        )


def _tier(item: TargetRun) -> Tier:
    if item.target.atomicity is not Atomicity.AUTO:
        return Tier(str(item.target.atomicity))
    if _in_the_way(item):
        return Tier.COMPENSATED
    return Tier.TWO_PHASE if item.found and item.found.prepared_slots else Tier.HELD_OPEN


def not_atomic(item: TargetRun) -> str | None:
    """Return the first pending migration that cannot run in a transaction, if there is one. Pure."""
    pending = item.found.pending if item.found else ()
    return next((entry.migration for entry in pending if not entry.atomic), None)


def only_readied(item: TargetRun) -> str | None:
    """Return the first pending migration that cannot run but by what is made ready before it, if there is one. Pure."""
    pending = item.found.pending if item.found else ()
    return next((entry.migration for entry in pending if entry.only_readied), None)


def _ahead(item: TargetRun) -> tuple[str, ...]:
    """Return what can run outside a transaction before everything else, where nothing else is outside one."""
    pending = item.found.pending if item.found else ()
    last = max((index for index, entry in enumerate(pending) if not entry.atomic), default=-1)
    ahead = pending[: last + 1]
    may_be = item.target.atomicity is not Atomicity.COMPENSATED and all(entry.online for entry in ahead)
    return tuple(entry.migration for entry in ahead) if may_be else ()


def _readied(item: TargetRun) -> tuple[str, ...]:
    """Return the migrations for which something is made ready, where they run in a transaction."""
    pending = item.found.pending if item.found else ()
    may_be = item.target.atomicity is not Atomicity.COMPENSATED and _in_the_way(item) is None
    return tuple(entry.migration for entry in pending if entry.readied) if may_be else ()


def _in_the_way(item: TargetRun) -> str | None:
    return None if item.ahead else not_atomic(item)


def _found(item: TargetRun) -> Iterator[Mistake]:
    if item.error is not None:
        yield Mistake(item.name, item.error.message, item.error.hint)
    for finding in item.found.findings if item.found else ():
        yield Mistake(item.name, finding.message, finding.hint)


def _tier_refusals(run: Run, item: TargetRun) -> Iterator[Mistake]:
    step = _in_the_way(item)
    if item.tier in {Tier.HELD_OPEN, Tier.TWO_PHASE} and step:
        yield Mistake(
            item.name,
            f"{step} cannot run in a transaction, so this database cannot reach the tier {item.tier}",
            'set atomicity = "auto" or "compensated" for it',
        )
    elif item.tier is Tier.TWO_PHASE and item.found and not item.found.prepared_slots:
        is_postgresql = item.found.vendor == "postgresql"
        yield Mistake(
            item.name,
            "its server keeps no transaction prepared, so this database cannot reach the tier two_phase",
            "set max_prepared_transactions and restart the server"
            if is_postgresql
            else 'set atomicity = "auto" for it',
        )
    elif run.plan.is_remote and item.tier is Tier.HELD_OPEN and item.has_work:
        yield Mistake(
            item.name,
            f"its tier is held_open, and a transaction held open cannot change machines: {tier_reason(item)}",
            'set atomicity = "compensated" for it, or max_prepared_transactions on its server',
        )
    elif item.tier and item.has_work and _STRENGTH[item.tier] < _STRENGTH[run.plan.minimum_atomicity]:
        minimum = run.plan.minimum_atomicity
        yield Mistake(
            item.name,
            f"it reaches the tier {item.tier}, and minimum_atomicity is {minimum}: {tier_reason(item)}",
            "lower minimum_atomicity, or deploy this change by itself",
        )


def _unready(item: TargetRun) -> Iterator[Mistake]:
    for pending in item.found.pending if item.found else ():
        if pending.only_readied and pending.migration not in item.readied:
            yield Mistake(
                item.name,
                f"{pending.migration}: {pending.only_readied}",
                "deploy it where all that is pending runs in a transaction, or set expand_contract = false",
            )


def _operation_refusals(item: TargetRun, *, by_phase: bool) -> Iterator[Mistake]:
    # What was empty is emptied again, whatever was done to it.
    committed_early = (item.tier is Tier.COMPENSATED or by_phase) and not (item.found and item.found.before.is_empty)
    for pending in item.found.pending if item.found else ():
        for operation in pending.irreversible if committed_early else ():
            yield Mistake(item.name, f"{pending.migration} could not be rolled back: {operation}")
