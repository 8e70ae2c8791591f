"""What `plan`, `check`, `status` and `rehearse` have to say of each database, as text below the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from smooth_orchestrator.console import printable
from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.render import databases_text
from smooth_orchestrator.report import DatabaseReport, Report
from smooth_orchestrator.stuck import stuck_words
from smooth_orchestrator.summary import few

__all__ = ["print_details"]


def print_details(report: Report, stream: TextIO) -> None:
    """Write what a report's databases know beyond its table; nothing when they know no more.

    Args:
        report: the report.
        stream: where to. A terminal gets what several know only once, and a few of their names; anything else all.
    """
    is_brief = stream.isatty()
    alike: dict[tuple[str | None, ...], list[str]] = {}
    for database in report.databases:
        if lines := [*_lines(database)]:
            name = None if is_brief else database.database
            told = (name, database.tier, database.extra.get("tier_reason"), *lines)
            alike.setdefault(told, []).append(database.database)
    for (_name, tier, reason, *known), names in alike.items():
        title = names[0] if len(names) == 1 else f"{databases_text(len(names))}: {few(names)}"
        words = "  ".join(word for word in (title, tier, reason) if word)
        stream.write(printable("\n".join(["", words, *(f"  {line}" for line in known)])) + "\n")
    if report.workers:
        stream.write(
            printable("\n".join(["", "workers", *(f"  {_worker(worker)}" for worker in report.workers)])) + "\n"
        )


def _worker(worker: Mapping[str, Any]) -> str:
    if "jobs" not in worker:
        return f"{worker['worker']}  {databases_text(worker['databases'])}"
    jobs = ", ".join(f"{job['project']} (job {job['id']}, run {job['run_id']})" for job in worker["jobs"])
    what = f"{worker['version']}, for {', '.join(worker['projects'])}, {worker['concurrency']} at a time"
    return f"{worker['worker']}  {what}, heard at {worker['heard_at']}: {jobs or 'nothing to do'}"


def _lines(database: DatabaseReport) -> Iterator[str]:
    extra = database.extra
    for migration in extra.get("migrations") or ():
        yield from _migration(migration)
    yield from (f"warning: {warning}" for warning in extra.get("warnings", ()))
    for finding in extra.get("findings", ()):
        yield f"finding: {_finding(finding)}"
    if "pending" in extra:
        yield f"pending: {_names(extra['pending'])}"
        yield from _held_back(database)
    yield from _rehearsed(extra)
    if extra.get("last_run"):
        yield f"last run: {_value(extra['last_run'])}"
    if extra.get("unsettled"):
        runs = ", ".join(extra["unsettled"])
        yield f"at work, or cut off: {runs}; `smooth-orchestrate recover PLAN` settles what was cut off"
    if extra.get("in_doubt"):
        yield f"in doubt: {_on_one_line(_value(extra['in_doubt']))}"
    yield from map(_on_one_line, stuck_words(extra.get("stuck")))
    for prepared in extra.get("prepared", ()):
        if prepared["whose"] == "another_program":
            yield f"prepared by another program, and left alone: {_prepared(prepared)}"
    for prepared in extra.get("prepared_elsewhere", ()):
        yield f"prepared in another database of its server: {_prepared(prepared)}"


def _prepared(prepared: Mapping[str, Any]) -> str:
    return _on_one_line("{gid} in {database}, {age_s} s ago by {owner}".format_map(prepared))


def _on_one_line(text: str) -> str:
    # Whoever may prepare a transaction chooses its name.
    return text.replace("\n", "\\n")


def _held_back(database: DatabaseReport) -> Iterator[str]:
    yield from (f"to finalise: {operation}" for operation in database.contract_pending)
    for due in database.extra.get("contract_due", ()):
        yield f"held back by {due['run_id']}" + (f", due at {due['due_at']}" if due["due_at"] else "")
        yield from (f"blocked: {_on_one_line(reason)}" for reason in due["blocked_by"])


def _rehearsed(extra: Mapping[str, Any]) -> Iterator[str]:
    if "reason" in extra:
        yield f"not all of it: {extra['reason']}"
    if "duration_ms" in extra:
        yield f"took {extra['duration_ms']:.0f} ms"
    for lock in extra.get("locks", ()):
        yield f"lock: {lock['mode']} on {lock['relation']}, held for {lock['held_ms']:.0f} ms"
    for table in extra.get("rewritten", ()):
        yield f"rewritten: {table['table']}, {table['size_bytes']} bytes"
    for name in extra.get("sequences_advanced", ()):
        yield f"sequence advanced, which no rollback takes back: {name}"


def _names(pending: Sequence[str] | None) -> str:
    return "unknown" if pending is None else ", ".join(pending) or "none"


def _migration(migration: Mapping[str, Any]) -> Iterator[str]:
    yield migration["migration"] + ("" if migration["reversible"] else "  (not reversible)")
    yield from (f"  expand: {operation}" for operation in migration["expand"])
    yield from (f"  contract: {operation}" for operation in migration["contract"])
    yield from (f"  lock: {lock}" for lock in migration["locks"])


def _finding(finding: object) -> str:
    if isinstance(finding, Mapping):
        return str(Mistake(finding.get("code") or finding["place"], finding["message"], finding.get("hint")))
    return str(finding)


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return "; ".join(_value(item) for item in value)
    return str(value)
