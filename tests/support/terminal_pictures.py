"""Pictures of a deploy at a real terminal for the documents: one that waits for a lock, and is then taken back."""

import html
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.text import Text

from demo.deploys import plan
from demo.fleet import LAST, Fleet
from tests.support.shop import check_out
from tests.support.terminals import terminal

__all__ = ["draw", "take", "text_of"]

_COLUMNS: Final = 112
_LINES: Final = 32
_COMMAND: Final = "smooth-orchestrate deploy.toml"

# What rich would have a browser fetch; any font of fixed width does as well, since each piece says how long it is.
_FETCHED: Final = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)
_FONT: Final = "Fira Code, monospace"

_PIECE: Final = re.compile(r'<text class="terminal-r\d+" x="([\d.]+)" y="([\d.]+)" [^>]*>([^<]*)</text>')
_LETTER: Final = 12.2


def take(directory: Path) -> None:
    """Run the demo's last release at a terminal, and draw what is seen while it waits and when it has ended.

    Args:
        directory: for the pictures, `terminal-waiting.svg` and `terminal-failed.svg`.
    """
    with tempfile.TemporaryDirectory() as place, Fleet.started(Path(place)) as fleet:
        project = Path(place)
        _prepare(fleet, project)
        variables = {"SHOP_DATABASES": json.dumps(fleet.databases)}
        with terminal(project, variables, _COLUMNS, _LINES) as screen:
            screen.type(f"PATH={Path(sys.executable).parent}:$PATH; PS1='$ '; clear")
            screen.wait_until(lambda seen: [line for line in seen if line] == ["$"])
            with psycopg.connect(fleet.places[LAST].source, application_name="nightly report") as holder:
                holder.execute("SELECT FROM orders_customer")
                screen.type(_COMMAND)
                screen.wait_for("1 waiting for a lock, 4 ready", "  2 s  lock of pid")
                waiting = screen.coloured()
            screen.wait_for("Rolled back: every database is as it was before.", f"{LAST}  fleet")
            ended = screen.coloured()
    for name, seen in (("waiting", waiting), ("failed", ended)):
        (directory / f"terminal-{name}.svg").write_text(draw(seen.splitlines()), encoding="utf-8")


def _prepare(fleet: Fleet, directory: Path) -> None:
    release_1 = check_out(1, directory / "release1")
    for name in fleet.places:
        fleet.open_for_business(name, release_1)
    fleet.plant_duplicate()
    check_out(3, directory / "shop")
    # One at a time, so that all others are ready while the last one waits.
    text = plan("shop").replace("parallel = 2", "parallel = 1")
    (directory / "deploy.toml").write_text(text.replace("[deploy]", '[deploy]\nlock_timeout = "60s"'))


def draw(screen: Sequence[str]) -> str:
    """Return a terminal's lines, coloured by escape sequences, as an SVG that asks nothing of the network."""
    shown = "\n".join(screen).rstrip().removesuffix("$").rstrip()
    console = Console(
        record=True, width=_COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    # rich cuts the last line's lower edge off.
    console.print(Text.from_ansi(shown), "")
    # Its own name for the picture's parts would be another each time.
    svg = console.export_svg(title=_COMMAND, unique_id="terminal")
    return re.sub(r"[ \t]+$", "", _FETCHED.sub("", svg).replace(_FONT, "monospace"), flags=re.MULTILINE)


def text_of(svg: str) -> str:
    """Return what a picture shows, as the terminal's lines."""
    lines: dict[float, str] = {}
    for x, y, piece in _PIECE.findall(svg):
        before = lines.get(float(y), "").ljust(round(float(x) / _LETTER))
        lines[float(y)] = before + html.unescape(piece).strip("\n").replace("\xa0", " ")
    return "\n".join(lines[y].rstrip() for y in sorted(lines))
