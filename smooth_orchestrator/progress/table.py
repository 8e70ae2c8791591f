"""What is told of a run as lines that fit a window: what concerns a person most stands first, the rest is counted."""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from smooth_orchestrator.console import on_one_line, wants_colour
from smooth_orchestrator.progress.told import DatabaseTold, PhaseTold, State, Told

__all__ = ["frame_of"]

_STYLES: Final = {
    State.FAILED: "bold red",
    State.WAITING: "yellow",
    State.RETRYING: "yellow",
    State.GOING_BACK: "yellow",
    State.AT_WORK: "cyan",
    State.READY: "green",
    State.ROLLED_BACK: "yellow",
    State.COMMITTED: "green",
    State.TO_COME: "dim",
    State.IDLE: "dim",
}
_URGENCY: Final = {state: place for place, state in enumerate(State)}

# A number of databases can be said to be more than one of them in its own line.
_COUNTED_AS: Final = {State.WAITING: "waiting for a lock", State.IDLE: "with nothing to do"}
_BUSY: Final = {State.WAITING, State.GOING_BACK, State.AT_WORK}
_MACHINES: Final = "machines: "
_PHASES: Final = {State.TO_COME: "to come", State.AT_WORK: "at work", State.READY: "done", State.ROLLED_BACK: "stopped"}

# The title, the phases, the machines, the counts, an empty line and the table's own head.
_LINES_ABOVE: Final = 6

# Of the window a database's name takes a half at the most: what it is at has the rest.
_SHARE_OF_NAMES: Final = 2
_TITLES: Final = ("database", "state", "run", "for", "at")
_GAP: Final = "  "

# What is longer than any window would only cost time.
_LONGEST: Final = 400
_SECONDS_A_MINUTE: Final = 60
_SECONDS_AN_HOUR: Final = 3600


def frame_of(told: Told, stream: TextIO, width: int, height: int) -> list[str]:
    """Return the lines of one picture, with colours where they are wanted.

    rich's own tables measure every cell several times, which takes a hundredth of a second for a window full of rows;
    of a picture that is drawn four times a second the columns are fitted here.

    Args:
        told: what is known.
        stream: the terminal; nothing is written.
        width: of its window, in columns; no line is as wide, so that none is wrapped.
        height: of its window, in lines; one is left for the cursor.
    """
    console = Console(
        file=io.StringIO(),
        width=max(1, width - 1),
        force_terminal=True,
        color_system="auto" if wants_colour(stream) else None,
        highlight=False,
        legacy_windows=False,
    )
    lines = [*_lines(told, console.width, height - 1)][: max(0, height - 1)]
    for line in lines:
        line.truncate(console.width, overflow="ellipsis")
    with console.capture() as captured:
        console.print(Text("\n").join(lines), no_wrap=True, crop=False)
    return captured.get().split("\n")[: len(lines)]


def _lines(told: Told, width: int, height: int) -> Iterator[Text]:
    yield _title(told)
    if told.phases:
        yield _text(_phases(told, width))
    if told.databases:
        machines = _machines(told.databases, width)
        if machines:
            yield _text(machines)
        yield _counts(told.databases)
        shown, more = _chosen(told.databases, height - _LINES_ABOVE + (not machines))
        if shown:
            yield Text()
            yield from _table(shown, told.now_s, width)
        if more:
            yield _text(f"and {more} more like the last", "dim")


def _title(told: Told) -> Text:
    of = f"{told.command} of {told.deploy}" if told.deploy else told.command
    title = _text(f"{of}: {told.doing}, {_time(told.for_s)}", "bold")
    return title.append(_GAP).append(_text(f"run {told.run_id}", "dim")) if told.run_id else title


def _phases(told: Told, width: int) -> str:
    gates = "".join(f"; gate {each.gate}, {_time(told.now_s - each.since_s)}" for each in told.phases if each.gate)
    each_one = "phases: " + ", ".join(f"{each.name} {_PHASES[each.state]}" for each in told.phases) + gates
    return each_one if len(each_one) <= width else _place(told.phases) + gates


def _place(phases: Sequence[PhaseTold]) -> str:
    begun = [number for number, each in enumerate(phases, 1) if each.state is not State.TO_COME]
    last = begun[-1] if begun else 1
    return f"phase {last} of {len(phases)}: {phases[last - 1].name}"


def _machines(databases: Sequence[DatabaseTold], width: int) -> str:
    """Return what each machine of a fleet is at; how many they are where that is too long, and nothing without any."""
    had = Counter(each.worker for each in databases if each.worker)
    busy = Counter(each.worker for each in databases if each.worker and each.state in _BUSY)
    each_one = ", ".join(f"{name} {busy[name]} of {count} at work" for name, count in sorted(had.items()))
    told = (
        each_one if len(each_one) <= width - len(_MACHINES) else f"{len(had)}, {busy.total()} of {had.total()} at work"
    )
    return f"{_MACHINES}{told}" if had else ""


def _counts(databases: Iterable[DatabaseTold]) -> Text:
    counted = Counter(each.state for each in databases)
    parts = [
        _text(f"{counted[state]} {_COUNTED_AS.get(state, state)}", _STYLES[state]) for state in State if counted[state]
    ]
    return Text(", ").join(parts)


def _chosen(databases: Sequence[DatabaseTold], room: int) -> tuple[Sequence[DatabaseTold], int]:
    """Return the databases that are shown, and how many like them are not; all, in the plan's order, if they fit."""
    if len(databases) <= room:
        return databases, 0
    live = [each for each in databases if each.state.is_live]
    if len(live) > room:
        room -= 1
    shown = nsmallest(max(0, room), live, key=lambda each: (_URGENCY[each.state], each.since_s))
    return shown, len(live) - len(shown)


def _table(databases: Sequence[DatabaseTold], now_s: float, width: int) -> Iterator[Text]:
    rows = [[_text(title, "bold") for title in _TITLES], *(_row(each, now_s) for each in databases)]
    widths = [max(row[column].cell_len for row in rows) for column in range(len(_TITLES))]
    widths[0] = min(widths[0], max(1, width // _SHARE_OF_NAMES))
    for row in rows:
        *cells, last = row
        for cell, cell_width in zip(cells, widths, strict=False):
            cell.truncate(cell_width, overflow="ellipsis", pad=True)
        yield Text(_GAP).join([*cells, last])


def _row(database: DatabaseTold, now_s: float) -> list[Text]:
    state = database.state
    run = f"{database.moved}/{database.pending}" if database.pending else str(database.moved or "")
    is_timed = state.is_live or state is State.READY
    # Of who keeps it waiting more is to be read than of what waits.
    is_kept = state in {State.WAITING, State.RETRYING}
    at = [part for part in (database.migration, database.note) if part]
    return [
        _text(database.name),
        _text(state, _STYLES[state]),
        _text(run),
        _text(_time(now_s - database.since_s) if is_timed else ""),
        _text(": ".join(reversed(at) if is_kept else at)),
    ]


def _text(text: str, style: str = "") -> Text:
    return Text(on_one_line(text[:_LONGEST]), style=style)


def _time(duration_s: float) -> str:
    if duration_s < _SECONDS_A_MINUTE:
        return f"{duration_s:.0f} s"
    minutes, seconds = divmod(int(duration_s), _SECONDS_A_MINUTE)
    if duration_s < _SECONDS_AN_HOUR:
        return f"{minutes}:{seconds:02} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02} h"
