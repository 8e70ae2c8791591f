"""A real browser for pages of this program: Debian's Chromium, driven by what npm has of Playwright and axe."""

import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.support.processes import kill_family

__all__ = ["Browser", "Seen", "Step", "Unavailable", "browser"]

Step = tuple[str, str]
"""What is done, and with what: see `browse.mjs`."""

_PACKAGES: Final = ("playwright-core@1.65.1", "axe-core@4.14.1")
_DRIVER: Final = Path(__file__).with_name("browse.mjs")
_INSTALL_TIMEOUT_S: Final = 300
_TIMEOUT_S: Final = 600
"""Of one look: axe alone takes most of a minute of processor time over a table of a thousand rows."""


class Unavailable(Exception):  # noqa: N818 - named by what it says of the browser
    """There is no browser here, or nothing to drive it by, for the reason that it gives."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of looking at a page.

    Args:
        told: what the page wrote to the console, and every dialog that it opened.
        requested: every address that was asked for, the page's own first.
        answers: to the steps `ask` and `axe`, in order.
    """

    told: list[str]
    requested: list[str]
    answers: list[Any]


@dataclass(frozen=True, slots=True)
class Browser:
    """Chromium without a window, begun anew for each look.

    Args:
        chromium: its program.
        node: what runs its driver.
        modules: where npm has installed that.
    """

    chromium: str
    node: str
    modules: Path

    def look(
        self,
        url: str,
        *steps: Step,
        size: tuple[int, int] = (1280, 900),
        scheme: Literal["light", "dark"] = "light",
        scripted: bool = True,
        scale: float = 1,
    ) -> Seen:
        """Open a page and take some steps there.

        Args:
            url: of the page.
            *steps: keys that are pressed, text that is typed, the medium, expressions to be evaluated, files for
                pictures, addresses to go to, selectors of what is clicked and leads to another page, and `axe`, which
                looks for what keeps people from using it.
            size: of the window, in pixels.
            scheme: the colours that its reader prefers.
            scripted: whether its own scripts are run.
            scale: how many pixels a picture has for one of the window's.

        Raises:
            AssertionError: the driver failed.
        """
        width, height = size
        asked = {
            "url": url,
            "steps": steps,
            "width": width,
            "height": height,
            "scheme": scheme,
            "scripted": scripted,
            "scale": scale,
            "chromium": self.chromium,
            "modules": str(self.modules),
        }
        exit_code, output, errors = _run([self.node, str(_DRIVER)], json.dumps(asked), _TIMEOUT_S)
        assert exit_code == 0, errors
        return Seen(**json.loads(output))


def browser() -> Browser:
    """Return the browser; its driver is downloaded by npm into this environment, once for all runs.

    Raises:
        Unavailable: there is none.
    """
    programs = {name: shutil.which(name) for name in ("chromium", "node", "npm")}
    if missing := [name for name, path in programs.items() if path is None]:
        raise Unavailable(f"not installed: {', '.join(missing)} (Debian's packages chromium, nodejs and npm)")
    chromium, node, npm = (str(path) for path in programs.values())
    home = Path(sys.prefix) / "browser"
    home.mkdir(exist_ok=True)
    wanted = home / "+".join(_PACKAGES).replace("/", "-")
    with (home / "lock").open("w") as lock:
        # Several processes of one test run ask at once.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (wanted / ".ready").exists():
            words = [npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(wanted)]
            exit_code, output, errors = _run([*words, *_PACKAGES], "", _INSTALL_TIMEOUT_S)
            if exit_code:
                raise Unavailable(f"npm could not install {', '.join(_PACKAGES)}: {(errors or output).strip()}")
            (wanted / ".ready").touch()
    return Browser(chromium, node, wanted)


def _run(words: Sequence[str], told: str, timeout_s: float) -> tuple[int, str, str]:
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            output, errors = process.communicate(told, timeout=timeout_s)
        except BaseException:
            kill_family(process.pid)
            raise
    return process.returncode, output, errors
