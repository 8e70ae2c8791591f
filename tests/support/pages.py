"""Accounts of runs that were never run, for what is said of their pages."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from smooth_orchestrator.page.account import Account
from smooth_orchestrator.report import DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome
from smooth_orchestrator.timeline import Mark, Span, SpanKind, Timeline, WorkerVersions

__all__ = ["DUPLICATE", "HOSTILE", "MIGRATIONS", "committed", "failed", "hostile"]

STARTED: Final = datetime(2026, 11, 23, 5, 57, 42, tzinfo=UTC)
MIGRATIONS: Final = (
    "catalog.0005_product_barcode",
    "orders.0005_customer_telephone",
    "orders.0006_one_customer_per_email",
)
DUPLICATE: Final = RunError(
    "IntegrityError",
    'could not create unique index "one_customer_per_email"',
    "23505",
    MIGRATIONS[-1],
    "remove the duplicates, or take the constraint out of this release",
    "shards:shard_3",
    "Key (email)=(ada@example.com) is duplicated.",
    "Create constraint one_customer_per_email on model customer",
    "orders/migrations/0006_one_customer_per_email.py:10",
)
HOSTILE: Final = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "</style></script></title></textarea><svg onload=alert(3)>",
    '"\' onmouseover="alert(4)" x=\'',
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b[31m\u202eevil\u2066\ufeff\ud800\x7f\x85",
    "javascript:alert(5)//" + "long" * 2000,
)
"""Names and texts that would do something in a page which trusted them."""


def committed(databases: int, *, migrations: Sequence[str] = MIGRATIONS) -> Account:
    """Return the account of a deploy that has reached so many databases, and has held something back."""
    names = [f"shards:shard_{number}" for number in range(databases)]
    decided_ms = 1_000.0 + databases * 20
    spans = {name: [*_moved(1_000.0 + number * 20, decided_ms, migrations)] for number, name in enumerate(names)}
    reports = [
        replace(
            _database(name, "fleet", DatabaseOutcome.COMMITTED),
            applied=tuple(migrations),
            contract_pending=(f"{migrations[0]}: drop column orders_order.sum",),
            lock_hold_ms=decided_ms - spans[name][0].start_ms,
        )
        for name in names
    ]
    return _account(reports, spans, Mark(decided_ms, "commit", "deploy"), RunOutcome.COMMITTED, decided_ms + 80)


def failed() -> Account:
    """Return the account of a deploy over five databases that was taken back, since the last one holds a duplicate."""
    names = ("primary", "kiosk", "shards:shard_1", "shards:shard_2", "shards:shard_3")
    decided_ms = 1_630.0
    spans: dict[str, list[Span]] = {}
    reports = []
    for number, name in enumerate(names):
        phase = "canary" if number < 2 else "fleet"
        start_ms = 940.0 + 110 * number
        moved = [*_moved(start_ms, decided_ms, MIGRATIONS)]
        if name == "shards:shard_2":
            moved.insert(0, Span(SpanKind.WAIT, start_ms + 4, 31.0, "psql (pid 4711)"))
        if name == names[-1]:
            moved = [
                *(span for span in moved if span.kind is SpanKind.APPLIED and span.label != MIGRATIONS[-1]),
                Span(SpanKind.WORK, start_ms, decided_ms - start_ms - 4),
                Span(SpanKind.FAILED, start_ms + 120, 12.0, MIGRATIONS[-1]),
            ]
            reports.append(replace(_database(name, phase, DatabaseOutcome.FAILED), error=DUPLICATE))
        else:
            moved = [span for span in moved if span.kind is not SpanKind.COMMITTED]
            back = replace(_database(name, phase, DatabaseOutcome.ROLLED_BACK), unapplied=MIGRATIONS[::-1])
            reports.append(replace(back, lock_hold_ms=decided_ms - start_ms - 60))
        spans[name] = [*moved, Span(SpanKind.ROLLED_BACK, decided_ms + 14 + number, 0.0)]
    account = _account(reports, spans, Mark(decided_ms, "abort", "deploy"), RunOutcome.ROLLED_BACK, 1_672.0)
    return replace(account, report=replace(account.report, error=DUPLICATE))


def hostile() -> Account:
    """Return the account of a run in which every name and text is hostile."""
    account = failed()
    names = dict(zip((each.database for each in account.report.databases), HOSTILE, strict=False))
    error = RunError(HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[3], HOSTILE[4], HOSTILE[5], *HOSTILE[:3], HOSTILE)
    databases = tuple(
        replace(
            each,
            database=names[each.database],
            phase=HOSTILE[0],
            alias=HOSTILE[1],
            unapplied=HOSTILE,
            contract_pending=tuple(f"{text}: {text}" for text in HOSTILE),
            error=replace(error, message=f"{each.database} {HOSTILE[1]}"),
        )
        for each in account.report.databases
    )
    report = replace(
        account.report,
        deploy=HOSTILE[2],
        outcome=RunOutcome.NEEDS_OPERATOR,
        databases=databases,
        error=error,
        settle_with=HOSTILE,
        runbook=HOSTILE[0],
        since=(("rollback", HOSTILE[0]),),
    )
    spans = {
        names[name]: [replace(span, label=HOSTILE[0]) for span in each] for name, each in account.timeline.spans.items()
    }
    timeline = replace(
        account.timeline,
        spans=spans,
        marks=(Mark(1_630.0, HOSTILE[0], HOSTILE[1]),),
        workers=(WorkerVersions(*HOSTILE[:4]),),
        version=HOSTILE[4],
    )
    return replace(account, report=report, timeline=timeline, digest=HOSTILE[1])


def _database(name: str, phase: str, outcome: DatabaseOutcome) -> DatabaseReport:
    kind, tier = ("sqlite", "held_open") if name == "kiosk" else ("postgresql", "two_phase")
    return DatabaseReport(
        database=name,
        project="shop",
        alias=name.rpartition(":")[2],
        vendor=kind,
        phase=phase,
        tier=tier,
        outcome=outcome,
    )


def _moved(start_ms: float, decided_ms: float, migrations: Sequence[str]) -> Iterator[Span]:
    at_ms = start_ms + 40
    for number, migration in enumerate(migrations):
        took_ms = 9.0 + 7 * (number % 3)
        yield Span(SpanKind.APPLIED, at_ms, took_ms, migration)
        at_ms += took_ms
    yield Span(SpanKind.WORK, start_ms, at_ms + 8 - start_ms)
    yield Span(SpanKind.HELD, at_ms + 8, max(0.0, decided_ms - at_ms - 8))
    yield Span(SpanKind.COMMITTED, decided_ms + 4, 12.0)


def _account(
    databases: Sequence[DatabaseReport],
    spans: dict[str, list[Span]],
    decision: Mark,
    outcome: RunOutcome,
    duration_ms: float,
) -> Account:
    return Account(
        report=Report(
            command="deploy",
            deploy="shop",
            run_id="20261123T055742-41743cf4",
            outcome=outcome,
            started_at=STARTED,
            duration_ms=duration_ms,
            databases=tuple(databases),
        ),
        timeline=Timeline(
            spans=spans,
            marks=(decision,),
            workers=(WorkerVersions("shop", "3.13.1", "6.1.2", "0.3.0"),),
            version="0.3.0",
        ),
        digest="44d2de802b8d3db46de146cb6daa8fb9bec99d7facb86cf47c4f54945c121ab8",
        due_at=STARTED.replace(day=24) if outcome is RunOutcome.COMMITTED else None,
    )
