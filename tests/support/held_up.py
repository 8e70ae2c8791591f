"""A call whose migration waits, half-way, for what a test does to the database meanwhile."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.small_project import Result, SmallProject

if TYPE_CHECKING:
    from subprocess import Popen

__all__ = ["HeldUp", "held_up", "holding_up"]

_FUNCTIONS = """\
def forwards(apps, editor):
    if os.path.exists("gate"):
        gate = os.open("gate", os.O_RDWR)
        print("waiting", flush=True)
        os.read(gate, 1)
        os.close(gate)
    {body}

def nothing(apps, editor):
    pass
"""


class HeldUp:
    """A call that waits.

    Args:
        process: the call.
        go_on: lets it go on.
        printed: what it has said so far.
    """

    def __init__(self, process: "Popen[str]", go_on: Callable[[], None], printed: str) -> None:
        self.process = process
        self._go_on = go_on
        self._printed = printed

    def end(self) -> Result:
        """Let it go on, and wait for its end."""
        self._go_on()
        return self.wait()

    def go_on_until(self, text: str) -> None:
        """Let it go on, and return when it has printed a line with this."""
        self._go_on()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._printed += line
            if text in line:
                return
        raise AssertionError(f"{text!r} was not printed:\n{self._printed}")

    def wait(self) -> Result:
        """Wait for its end."""
        stdout, stderr = self.process.communicate()
        return Result(self.process.returncode, self._printed + stdout, stderr)


def holding_up(body: str) -> str:
    """Return the source of functions for `RunPython`: `forwards` waits once, and then does this."""
    return _FUNCTIONS.format(body=body)


@contextmanager
def held_up(project: SmallProject, directory: Path, *arguments: str) -> Iterator[HeldUp]:
    """Start `apply_migrations`, and yield it when the migration with `holding_up` waits; no other call does.

    Args:
        project: what runs.
        directory: of the project.
        arguments: of the call.
    """
    gate, opened = directory / "gate", directory / "opened"
    os.mkfifo(gate)

    def go_on() -> None:
        opened.write_bytes(b".")

    with project.start("apply_migrations", *arguments) as process:
        try:
            assert process.stdout is not None
            lines: list[str] = []
            for line in process.stdout:
                lines.append(line)
                if line.endswith("waiting\n"):
                    break
            assert "".join(lines).endswith("waiting\n"), process.communicate()
            gate.rename(opened)
            yield HeldUp(process, go_on, "".join(lines))
        finally:
            process.kill()
