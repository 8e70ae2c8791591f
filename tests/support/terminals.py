"""A real terminal: tmux, with a shell in it that a test types into, and whose screen it reads."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.leases import until

__all__ = ["Terminal", "terminal", "why_no_terminal"]

# Of build servers, and of the terminal that the tests themselves are run in.
_NOT_INHERITED: Final = ("CI", "NO_COLOR", "COLUMNS", "LINES", "TMUX", "TMUX_PANE")
_PROMPT: Final = "type>"
_PATIENCE_S: Final = 20


def why_no_terminal() -> str | None:
    """Return why there is none, if so."""
    return None if shutil.which("tmux") else "tmux is not installed"


class Terminal:
    """One window of tmux.

    Args:
        socket: of its server.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def tmux(self, *words: str) -> str:
        """Run a command of tmux."""
        # Any configuration of the user's would make it another terminal.
        command = ["tmux", "-u", "-f", "/dev/null", "-S", str(self._socket), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def type(self, line: str) -> None:
        """Type a line, and Enter."""
        self.write(line)
        self.press("Enter")

    def write(self, text: str) -> None:
        """Type some text alone."""
        self.tmux("send-keys", "-l", text)

    def press(self, key: str) -> None:
        """Press a key, such as `C-c`."""
        self.tmux("send-keys", key)

    def clear(self) -> None:
        """Clear the screen, and wait until it is."""
        self.type("clear")
        self.wait_until(lambda seen: [line for line in seen if line] == [_PROMPT])

    def resize(self, columns: int, lines: int) -> None:
        """Make the window larger or smaller."""
        self.tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def screen(self) -> list[str]:
        """Return what is seen, line by line."""
        return self.tmux("capture-pane", "-p").split("\n")[:-1]

    def everything(self) -> str:
        """Return what is seen, and what has gone off the top, with wrapped lines in one piece."""
        return self.tmux("capture-pane", "-p", "-J", "-S", "-")

    def coloured(self) -> str:
        """Return what is seen, with its colours."""
        return self.tmux("capture-pane", "-p", "-e")

    def wait_for(self, *texts: str) -> list[str]:
        """Wait until all of these are seen at once, and return the screen."""
        return self.wait_until(lambda seen: all(text in "\n".join(seen) for text in texts))

    def wait_until(self, is_so: Callable[[list[str]], bool], patience_s: float = _PATIENCE_S) -> list[str]:
        """Wait until something is true of the screen, for so long at the most, and return it."""
        seen: list[str] = []

        def look() -> bool:
            seen[:] = self.screen()
            return is_so(seen)

        try:
            until(look, patience_s=patience_s)
        except AssertionError as error:
            error.add_note(self.everything())
            raise
        return seen

    def wait_for_prompt(self, patience_s: float = _PATIENCE_S) -> list[str]:
        """Wait until the shell is ready for a line, and return the screen."""
        return self.wait_until(lambda seen: _last(seen) == _PROMPT, patience_s)

    def is_sane(self) -> bool:
        """Tell whether a program has left it as it was: a cursor, no other screen, and keys that are echoed."""
        self.wait_for_prompt()
        shown = self.tmux("display-message", "-p", "#{cursor_flag} #{alternate_on}").strip()
        self.type("stty -a | grep -cw -- -echo; printf 'asked %s\\n' now")
        answer = "\n".join(self.wait_for("\nasked now"))
        # The line itself is seen only where keys are echoed.
        return shown == "1 0" and "stty -a | grep" in answer and "\n0\nasked now" in answer


def _last(screen: list[str]) -> str:
    return next((line for line in reversed(screen) if line), "")


@contextmanager
def terminal(directory: Path, environment: Mapping[str, str], columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """Open a terminal with a shell in a directory; whatever runs in it ends with the block."""
    variables = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    variables |= {"LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    # The path of a socket may not be long, and those of test directories are.
    with tempfile.TemporaryDirectory(prefix="smooth-tmux-") as short:
        opened = Terminal(Path(short, "socket"))
        size = ("-x", str(columns), "-y", str(lines))
        command = ["tmux", "-u", "-f", "/dev/null", "-S", str(Path(short, "socket")), "new-session", "-d", *size, "sh"]
        subprocess.run(command, check=True, cwd=directory, env=variables)
        try:
            # A shell of its own mind says something else in front of each line for root.
            opened.type(f"PS1='{_PROMPT} '; clear")
            opened.wait_for_prompt()
            yield opened
        finally:
            opened.tmux("kill-server")
