"""A page of the documents that a test follows: its files are written, its commands run, in one shell, word for word."""

import os
import pty
import re
import subprocess
import termios
import tty
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

__all__ = ["FOLLOWED", "Command", "File", "Shell", "normalised", "steps_of", "under"]

FOLLOWED: Final = ("docs/tutorial/", "docs/runbooks/")
"""Where pages are of which a test runs every command that a block shows."""

_FENCED: Final = re.compile(
    r"(?:`(?P<path>[^`\n]+)`:\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_PROMPT: Final = "$ "
# The end of a command's output; no command prints it.
_END: Final = "\x1e"
_VARYING: Final = (
    (re.compile(r"\b\d{8}T\d{6}-[0-9a-f]{8}\b"), "RUN"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00| UTC)?"), "MOMENT"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DAY"),
    (re.compile(r"\b\d\d:\d\d\b"), "CLOCK"),
    (re.compile(r"\b[\d.]+ (ms|s)\b"), "TIME"),
    (re.compile(r"\bhost \S+, pid \d+\b"), "PROCESS"),
    (re.compile(r"\bpid \d+\b"), "PROCESS"),
    (re.compile(r"\bport \d+\b"), "PORT"),
    (re.compile(r"/\S+(?=/\.smooth/)"), "DIRECTORY"),
    (re.compile(r"\brecord \d+\b"), "RECORD"),
    # Columns are as wide as what stands in them.
    (re.compile(r" {2,}"), "  "),
)


@dataclass(frozen=True, slots=True)
class File:
    """A file whose text a page shows, under a sentence that ends with its path.

    Args:
        path: of the file, relative to where the reader is.
        text: whole.
    """

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command, and what the page says that it prints.

    Args:
        line: as it is typed.
        shown: the lines of its output.
    """

    line: str
    shown: str


def steps_of(text: str) -> Iterator[File | Command]:
    """Give what the reader of a page, or of a part of it, writes and runs, in order."""
    for block in _FENCED.finditer(text):
        if block["kind"] == "console":
            for part in re.split(rf"^{re.escape(_PROMPT)}", block["text"], flags=re.MULTILINE)[1:]:
                line, _, shown = part.partition("\n")
                yield Command(line, shown)
        elif block["path"]:
            yield File(block["path"], block["text"])


def under(text: str, heading: str) -> str:
    """Return the part of a page under a heading of the second level.

    Raises:
        ValueError: there is not one such heading.
    """
    _, found, rest = text.partition(f"\n## {heading}\n")
    if not found:
        message = f"no heading {heading!r}"
        raise ValueError(message)
    return rest.partition("\n## ")[0]


def normalised(text: str) -> list[str]:
    """Return an output's lines without what differs from run to run: ids, moments, durations, widths of columns."""
    for pattern, name in _VARYING:
        text = pattern.sub(name, text)
    return [line.rstrip() for line in text.strip().splitlines()]


def _terminal(lines: int, columns: int) -> tuple[int, int]:
    """Return both ends of a terminal of this size, which passes on what is written to it as it is."""
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    termios.tcsetwinsize(theirs, (lines, columns))
    return ours, theirs


class Shell:
    """One session of bash, in which a page is followed.

    Args:
        stdin: of bash, which reads commands from it.
        stdout: what they print.
        errors: the file of what they write to stderr.
    """

    def __init__(self, stdin: IO[str], stdout: IO[str], errors: Path) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._errors = errors

    @classmethod
    @contextmanager
    def started(
        cls,
        directory: Path,
        environment: Mapping[str, str],
        *,
        errors: Path,
        window: tuple[int, int] | None = None,
    ) -> Iterator["Shell"]:
        """Start one; it ends with the block.

        Args:
            directory: where it begins.
            environment: all of it.
            errors: an existing directory for what commands write to stderr, which no page shows.
            window: the lines and columns of a terminal that they print to; to a pipe where it is None.
        """
        with ExitStack() as stack:
            stdout, end = os.pipe() if window is None else _terminal(*window)
            printed = stack.enter_context(open(stdout))  # noqa: PTH123 - a descriptor
            stderr = stack.enter_context((errors / "stderr").open("w"))
            process = stack.enter_context(
                subprocess.Popen(
                    ["bash", "--norc"],
                    cwd=directory,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=end,
                    stderr=stderr,
                    text=True,
                )
            )
            os.close(end)
            assert process.stdin is not None
            yield cls(process.stdin, printed, errors / "stderr")

    def run(self, line: str) -> tuple[int, str]:
        """Run a command line to its end; return its exit code and what it printed."""
        # Which leaves `$?` to the next line.
        self._stdin.write(f"{{ {line}\n}} </dev/null; _code=$?; printf '{_END}%s\\n' $_code; (exit $_code)\n")
        self._stdin.flush()
        output: list[str] = []
        for printed in self._stdout:
            text, ended, code = printed.partition(_END)
            output.append(text)
            if ended:
                return int(code), "".join(output)
        raise AssertionError(f"the shell has ended in {line!r}:\n{self.errors}")

    @property
    def errors(self) -> str:
        """What the commands have written to stderr so far."""
        return self._errors.read_text()

    def follow(self, text: str) -> Sequence[int]:
        """Do what a page, or a part of it, says, and assert that everything prints what it shows.

        Args:
            text: of the page.

        Returns:
            the commands' exit codes.
        """
        codes: list[int] = []
        for step in steps_of(text):
            if isinstance(step, File):
                written, _ = self.run(
                    f"mkdir -p $(dirname '{step.path}') && cat > '{step.path}' <<'{_END}'\n{step.text}{_END}"
                )
                assert written == 0, self.errors
                continue
            code, output = self.run(step.line)
            assert normalised(output) == normalised(step.shown), f"{step.line}\n{output}\n{self.errors}"
            codes.append(code)
        assert codes, "nothing to follow"
        return codes
