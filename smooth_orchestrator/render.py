"""Reports as text for people: first the cause, then the state that the databases are in, then a table."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby, zip_longest
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Final, TextIO

from smooth_orchestrator.console import Plain, printable, wants_colour
from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.journal.base import RunSummary
from smooth_orchestrator.report import HALTED, DatabaseOutcome, DatabaseReport, Report, RunError, RunOutcome
from smooth_orchestrator.runbooks import BY_CODE
from smooth_orchestrator.sqlstates import in_words
from smooth_orchestrator.summary import Step, counted, few, next_step, since_then, telling

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["database_of", "databases_text", "duration_text", "near_text", "print_report", "print_runs", "state_of"]

# Wide enough never to wrap: a line of a file or a pipe is for grep.
_UNWRAPPED_WIDTH: Final = 4000

# What a screen has of errors, at least of the first one's message, of each line of that, and at least of databases.
_ERRORS_SHOWN: Final = 3
_LEAST_LINES: Final = 2
_LONGEST_LINE: Final = 500
_LEAST_ROWS: Final = 2

# What is beside the first message, at the most.
_LINES_BESIDE: Final = 21

# Between columns, and the narrowest cell that says something.
_GAP: Final = 2
_LEAST_CELL: Final = 12

# The table's head, the counts, and where the shell's prompt comes.
_LINES_BELOW: Final = 4

_STYLES: Final = {
    RunOutcome.COMMITTED: "green",
    RunOutcome.NOTHING_TO_DO: "green",
    RunOutcome.NOT_DUE: "green",
    DatabaseOutcome.COMMITTED: "green",
    DatabaseOutcome.UNCHANGED: "dim",
    DatabaseOutcome.ROLLED_BACK: "yellow",
}
_BAD: Final = "bold red"

_SENTENCES: Final = {
    RunOutcome.NOTHING_TO_DO: "Nothing to do: no database was changed.",
    RunOutcome.NOT_DUE: "Not due yet: no database was changed.",
    RunOutcome.ROLLED_BACK: "Rolled back: every database is as it was before.",
    RunOutcome.REFUSED: "Refused: nothing was begun, and every database is as it was before.",
    RunOutcome.INVALID: "Not a valid plan or command: no database was touched.",
    RunOutcome.LOCKED: "Another run is at work: this one changed nothing.",
}

# Commands that change nothing: that they did not is no news.
_LOOKS: Final = {
    "plan": "This is what a deploy would run; no database was changed.",
    "check": "Ready: nothing refuses this deploy. No database was changed.",
    "status": "This is where every database stands; no database was changed.",
    "rehearse": "Rehearsed: what was run would succeed, and was rolled back. No database was changed.",
}


def print_report(report: Report, stream: TextIO, plan: Path | None = None, words: Sequence[str] = ()) -> None:
    """Write one run's report; `Report.masked` it first.

    Args:
        report: the report.
        stream: where to. A terminal gets about a screen, coloured and fitted to its width, and the command that comes
            next; anything else the whole, plain and unwrapped.
        plan: the plan file, which that command is for.
        words: of the command line that has made the report, as `next_step` takes them.
    """
    is_brief = stream.isatty()
    if not is_brief and not report.databases:
        _print_head(Plain(stream), report, None, height=None)
        return
    console = _console(stream)
    with console.capture() as captured:
        step = next_step(report, str(plan), words) if plan and is_brief else None
        _print_head(console, report, step, height=console.height if is_brief else None)
    head = captured.get()
    stream.write(head)
    if report.databases:
        room = max(console.height - head.count("\n") - _LINES_BELOW, _LEAST_ROWS)
        _print_databases(console, report, room if is_brief and len(report.databases) > room else None)


def _print_head(console: "Console | Plain", report: Report, step: Step | None, *, height: int | None) -> None:
    is_brief = height is not None
    errors = [error for error in (report.error, *report.errors) if error]
    shown = errors[:_ERRORS_SHOWN] if is_brief else errors
    longest = None if height is None else max(_LEAST_LINES, height - _LINES_BESIDE)
    for error in shown:
        if is_brief and error is not errors[0]:
            _print_in_short(console, error, report)
        elif isinstance(error, Mistake):
            _print_mistake(console, error, longest)
        else:
            _print_error(console, error, database_of(error, report), longest)
    if len(errors) > len(shown):
        console.print(f"and {len(errors) - len(shown)} more like these; `report` and --json tell all of them")
    if errors:
        console.print()
    console.print(state_of(report, is_brief=is_brief), style=_STYLES.get(report.outcome, _BAD))
    for sentence in since_then(report):
        console.print(printable(sentence))
    _print_settling(console, report)
    if step is not None:
        console.print(f"{step.when}:\n  {printable(step.command)}", soft_wrap=True)
    console.print(_headline(report), style="dim")
    if report.databases:
        console.print()


def _print_settling(console: "Console | Plain", report: Report) -> None:
    """Print the commands for an operator, and the page that is for no other cause."""
    if report.settle_with:
        console.print(f"Settle it with{' one of' if len(report.settle_with) > 1 else ''}:")
    for command in report.settle_with:
        console.print(f"  {printable(command)}")
    if report.runbook and (report.settle_with or report.runbook not in BY_CODE.values()):
        console.print(f"What to do: {report.runbook}")


def print_runs(runs: Sequence[RunSummary], stream: TextIO) -> None:
    """Write a list of runs, in the order given.

    Args:
        runs: all of them.
        stream: where to. A terminal gets about a screen: by days, and in one row those that follow one another and have
            ended alike; anything else a row for each.
    """
    console = _console(stream)
    if not runs:
        stream.write("No run has been recorded.\n")
    elif stream.isatty():
        room = max(console.height - _LINES_BELOW, _LEAST_ROWS)
        alike = [[*same] for _, same in groupby(runs, _told_of)]
        titles, rows = ("day", "UTC", "run", "command", "took", "outcome", "error"), [*_by_day(alike[:room])]
        _print_table(console, titles, _cut([titles, *rows], console.width)[1:])
        if left := sum(map(len, alike[room:])):
            console.print(f"and {left} more; `smooth-orchestrate runs PLAN | less` has all of them")
    else:
        titles = ("run", "command", "started", "took", "outcome", "exit", "error")
        _print_table(console, titles, [_run_row(run) for run in runs])


def _run_row(run: RunSummary) -> tuple[str, ...]:
    started = run.started_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    exit_code = "" if run.exit_code is None else str(run.exit_code)
    return run.run_id, run.command, started, _took(run), _ended(run), exit_code, _error_of(run)


def _told_of(run: RunSummary) -> tuple[str, ...]:
    return f"{run.started_at:%Y-%m-%d}", run.command, _ended(run), _error_of(run)


def _by_day(alike: Iterable[Sequence[RunSummary]]) -> Iterator[tuple[str, ...]]:
    """Yield a row for runs that are alike, with the day in the first one of it."""
    before = ""
    for first, *others in alike:
        day, command, ended, error = _told_of(first)
        more = f" +{len(others)}" if others else ""
        told = "" if day == before else day
        yield told, f"{first.started_at:%H:%M}", first.run_id + more, command, _took(first), ended, error
        before = day


def _cut(rows: Sequence[Sequence[str]], width: int) -> list[tuple[str, ...]]:
    """Return rows with as much of the last cell as there is room for in a line, or without it where that is little."""
    left = width - sum(max(map(len, column)) + _GAP for column in [*zip(*rows, strict=True)][:-1])
    last = [printable(row[-1]) for row in rows]
    shown = (
        [text if len(text) <= left else f"{text[: left - 1]}…" for text in last] if left >= _LEAST_CELL else last[:0]
    )
    return [(*row[:-1], text) for row, text in zip_longest(rows, shown, fillvalue="")]


def _took(run: RunSummary) -> str:
    return duration_text((run.finished_at - run.started_at).total_seconds() * 1000) if run.finished_at else ""


def _ended(run: RunSummary) -> str:
    return run.outcome or "unfinished"


def _error_of(run: RunSummary) -> str:
    return str(run.error["message"]).partition("\n")[0] if run.error else ""


def _console(stream: TextIO) -> "Console":
    from rich.console import Console  # noqa: PLC0415 - slow to import, and most commands of a pipeline print JSON

    terminal = stream.isatty()
    # rich takes COLUMNS=0 for a width, and ends with an error of its own where it is written with other digits.
    size = get_terminal_size() if terminal else None
    return Console(
        file=stream,
        width=size.columns if size else _UNWRAPPED_WIDTH,
        height=size.lines if size else None,
        color_system="auto" if wants_colour(stream) else None,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not terminal,
    )


def _print_error(console: "Console | Plain", error: RunError, database: str | None, longest: int | None) -> None:
    where = ", ".join(
        f"{word} {value}"
        for word, value in (
            ("database", database),
            ("migration", error.migration),
            ("SQLSTATE", error.sqlstate and in_words(error.sqlstate)),
        )
        if value
    )
    console.print(printable(where or error.type), style=_BAD)
    _print_indented(console, "\n".join(part for part in (error.message, error.detail) if part), longest)
    for word, value in (
        ("operation", error.operation),
        ("at", error.place and near_text(error.place)),
        ("lock held by", ", ".join(error.blockers)),
        ("hint", error.hint),
    ):
        if value:
            console.print(f"  {word}: {printable(value)}")


def _print_in_short(console: "Console | Plain", error: RunError | Mistake, report: Report) -> None:
    if isinstance(error, Mistake):
        where = error.place
    else:
        database = database_of(error, report)
        where = f"database {database}" if database else error.type
    for line, style in ((where, _BAD), (f"  {error.message}", "")):
        console.print(printable(line.partition("\n")[0]), style=style, no_wrap=True, overflow="ellipsis")


def _print_mistake(console: "Console | Plain", mistake: Mistake, longest: int | None) -> None:
    console.print(printable(mistake.place), style=_BAD)
    _print_indented(console, mistake.message, longest)
    if mistake.hint:
        console.print(f"  hint: {printable(mistake.hint)}")


def _print_indented(console: "Console | Plain", message: str, longest: int | None) -> None:
    lines = printable(message).splitlines()
    for line in lines[:longest]:
        console.print(f"  {line if longest is None else line[:_LONGEST_LINE]}")
    if lines[longest:] and longest is not None:
        console.print(f"  … ({len(lines) - longest} more lines)")


def database_of(error: RunError, report: Report) -> str | None:
    """Return where an error happened, for one that does not say so itself."""
    if error.database:
        return error.database
    same = (item.database for item in report.databases if item.error and item.error.message == error.message)
    return next(same, None)


def state_of(report: Report, *, is_brief: bool = False) -> str:
    """Return one sentence on what the databases are like now."""
    named = few if is_brief else ", ".join
    committed = [item.database for item in report.databases if item.outcome is DatabaseOutcome.COMMITTED]
    if report.outcome is RunOutcome.COMMITTED:
        idle = len(report.databases) - len(committed)
        rest = f"; {databases_text(idle)} had nothing to do" if idle else ""
        return f"Done: {databases_text(len(committed))} changed{rest}."
    if report.outcome is RunOutcome.HALTED or _is_halted(report):
        return f"Halted: changed and left so: {named(committed)}; every other database is as it was before."
    if report.outcome is RunOutcome.NEEDS_OPERATOR:
        unsettled = {DatabaseOutcome.IN_DOUBT, DatabaseOutcome.FAILED}
        names = named([item.database for item in report.databases if item.outcome in unsettled])
        return f"An operator is needed; not settled: {names or 'see above'}."
    if report.outcome is RunOutcome.REFUSED and report.command == "rehearse":
        return "This deploy would not succeed; every database is as it was before."
    if report.outcome is RunOutcome.NOTHING_TO_DO:
        return _LOOKS.get(report.command, _SENTENCES[report.outcome])
    return _SENTENCES[report.outcome]


def _is_halted(report: Report) -> bool:
    return any(isinstance(error, RunError) and error.type == HALTED for error in report.errors)


def _headline(report: Report) -> str:
    deploy = f"{report.command} of {report.deploy}" if report.deploy else report.command
    return (
        f"{deploy}, run {report.run_id}: {report.outcome}, exit {report.exit_code}, {duration_text(report.duration_ms)}"
    )


def _print_databases(console: "Console", report: Report, room: int | None) -> None:
    """Print a table of all databases, or, where there is no room for them, of as many as fit.

    Those are, of a run, the ones to be told of one by one; and where nothing was changed, all, with one row for all
    that are alike.
    """
    is_look = report.command in _LOOKS
    shown = report.databases if room is None or is_look else telling(report.databases)[:room]
    rows = [_row(item) for item in shown]
    if is_look and room is not None:
        rows = [*_alike(rows)]
    titles = ("database", "phase", "tier", "outcome", "applied", "taken back", "to finalise", "locks held")
    if rows:
        _print_table(console, titles, rows)
    if room is not None and not is_look:
        console.print(f"{counted(report.databases)}; `smooth-orchestrate report PLAN | less` has all of them")


def _row(database: DatabaseReport) -> tuple[str, ...]:
    return (
        database.database,
        database.phase,
        database.tier or "",
        str(database.outcome),
        _count(database.applied),
        _count(database.unapplied),
        _count(database.contract_pending),
        duration_text(database.lock_hold_ms) if database.lock_hold_ms else "",
    )


def _alike(rows: Iterable[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    names: dict[tuple[str, ...], list[str]] = {}
    for name, *told in rows:
        names.setdefault(tuple(told), []).append(name)
    yield from ((few(same), *told) for told, same in names.items())


def _print_table(console: "Console", titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without lines, and without the columns that have nothing to say."""
    from rich.table import Table  # noqa: PLC0415 - as in `_console`
    from rich.text import Text  # noqa: PLC0415 - as in `_console`

    shown = [index for index in range(len(titles)) if any(row[index] for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index in shown:
        table.add_column(titles[index], overflow="fold")
    for row in rows:
        cells = (printable(row[index]) for index in shown)
        table.add_row(
            *(Text(cell, style=_style(cell, titles[index])) for index, cell in zip(shown, cells, strict=True))
        )
    console.print(table)


def _style(cell: str, title: str) -> str:
    if title != "outcome":
        return ""
    return next((style for outcome, style in _STYLES.items() if outcome == cell), _BAD)


def _count(names: Sequence[str]) -> str:
    return str(len(names)) if names else ""


def databases_text(number: int) -> str:
    """Return how many databases, in words."""
    return "1 database" if number == 1 else f"{number} databases"


def duration_text(duration_ms: float) -> str:
    """Return a length of time with its unit."""
    return f"{duration_ms / 1000:.1f} s" if duration_ms >= 1000 else f"{duration_ms:.0f} ms"  # noqa: PLR2004 - units


def near_text(place: str) -> str:
    """Return a place as seen from here, where it is below: shorter, and to be opened from this directory."""
    with suppress(OSError, ValueError):
        return str(Path(place).relative_to(Path.cwd()))
    return place
