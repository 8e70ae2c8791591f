"""What `plan`, `status` and `runs` tell, as tables for a merge request or a page: Markdown and HTML."""

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from smooth_orchestrator.console import on_one_line
from smooth_orchestrator.errors import Mistake
from smooth_orchestrator.journal.base import RunSummary
from smooth_orchestrator.report import DatabaseReport, Report
from smooth_orchestrator.stuck import stuck_words
from smooth_orchestrator.summary import few

__all__ = ["WRITERS", "Table", "table_of", "table_of_runs"]

_PLAN_COLUMNS: Final = ("phase", "databases", "tier", "migration", "expand", "contract", "reversible", "locks")
_STATUS_COLUMNS: Final = ("phase", "database", "outcome", "pending", "to finalise", "last run", "in doubt")
_RUN_COLUMNS: Final = ("run", "command", "started", "outcome", "exit", "error")

# What Markdown, or a forge that reads it, would make something of: mentions, references, tags, formulas.
_MARKDOWN: Final = re.compile(r"[\\`*\[\]|<>&~@#!$]|(?<![^\W_])_|_(?![^\W_])")

Cell = Sequence[str]
"""The lines of a cell."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table with what is said above it.

    Args:
        title: of it.
        notes: sentences and errors, one a line.
        columns: their titles.
        rows: of cells, one for each column.
    """

    title: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def table_of(report: Report) -> Table:
    """Return the report of `plan` or `status` as a table; databases with the same plan share its rows. Pure."""
    errors = [error for error in (report.error, *report.errors) if error]
    notes = [f"{report.outcome.replace('_', ' ')}, exit {report.exit_code}, run {report.run_id}"]
    notes += [str(error) if isinstance(error, Mistake) else error.message for error in errors]
    title = f"{report.command} of {report.deploy}" if report.deploy else report.command
    if report.command == "status":
        rows = tuple(_status_row(each) for each in report.databases)
        return Table(title, tuple(notes), _STATUS_COLUMNS, rows)
    idle = sum(not each.extra.get("migrations") for each in report.databases)
    if idle:
        notes.append(f"databases with nothing to do: {idle}")
    for each in report.databases:
        notes += [f"{each.database}: {warning}" for warning in each.extra.get("warnings", ())]
    return Table(title, tuple(dict.fromkeys(notes)), _PLAN_COLUMNS, tuple(_plan_rows(report.databases)))


def table_of_runs(deploy: str, runs: Iterable[RunSummary]) -> Table:
    """Return runs as a table. Pure."""
    rows = (
        (
            run.run_id,
            run.command,
            run.started_at.isoformat(timespec="seconds"),
            run.outcome or "unfinished",
            "" if run.exit_code is None else str(run.exit_code),
            str(run.error["message"]) if run.error else "",
        )
        for run in runs
    )
    return Table(f"runs of {deploy}", (), _RUN_COLUMNS, tuple(tuple((cell,) for cell in row) for row in rows))


def _plan_rows(databases: Iterable[DatabaseReport]) -> Iterator[tuple[Cell, ...]]:
    alike: dict[tuple[str, str, str], list[DatabaseReport]] = {}
    for each in databases:
        if migrations := each.extra.get("migrations"):
            alike.setdefault((each.phase, each.tier or "", json.dumps(migrations)), []).append(each)
    for (phase, tier, _), group in alike.items():
        names = few([each.database for each in group])
        for migration in group[0].extra["migrations"]:
            yield (phase,), (names,), (tier,), *_planned(migration)


def _planned(migration: Mapping[str, Any]) -> tuple[Cell, ...]:
    is_reversible = "yes" if migration["reversible"] else "no"
    return (
        (migration["migration"],),
        migration["expand"],
        migration["contract"],
        (is_reversible,),
        [str(lock) for lock in migration["locks"]],
    )


def _status_row(database: DatabaseReport) -> tuple[Cell, ...]:
    extra = database.extra
    pending, in_doubt = extra.get("pending"), extra.get("in_doubt") or ()
    return (
        (database.phase,),
        (database.database,),
        (str(database.outcome),),
        ("unknown",) if pending is None else pending,
        database.contract_pending,
        (extra.get("last_run") or "",),
        (*in_doubt, *stuck_words(extra.get("stuck"))),
    )


def _markdown(table: Table) -> str:
    def row(cells: Iterable[Cell]) -> str:
        return f"| {' | '.join('<br>'.join(map(_in_markdown, cell)) for cell in cells)} |"

    head = [f"### {_in_markdown(table.title)}", "", *(f"- {_in_markdown(note)}" for note in table.notes)]
    if table.rows:
        rule = f"|{'---|' * len(table.columns)}"
        head += ["", row((title,) for title in table.columns), rule, *map(row, table.rows)]
    return "\n".join(head)


def _in_markdown(text: str) -> str:
    return _MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", on_one_line(text))


def _html(table: Table) -> str:
    def row(tag: str, cells: Iterable[Cell]) -> str:
        filled = ("<br>".join(map(_in_html, cell)) for cell in cells)
        return f"<tr>{''.join(f'<{tag}>{text}</{tag}>' for text in filled)}</tr>"

    notes = "".join(f"<li>{_in_html(note)}</li>" for note in table.notes)
    lines = [f"<h3>{_in_html(table.title)}</h3>", *([f"<ul>{notes}</ul>"] if notes else [])]
    if table.rows:
        titles = row("th", ((title,) for title in table.columns))
        rows = (row("td", cells) for cells in table.rows)
        lines += ["<table>", f"<thead>{titles}</thead>", "<tbody>", *rows, "</tbody>", "</table>"]
    return "\n".join(lines)


def _in_html(text: str) -> str:
    return html.escape(on_one_line(text))


WRITERS: Final[Mapping[str, Callable[[Table], str]]] = {"markdown": _markdown, "html": _html}
"""What makes text of a table, by the name of its format."""
