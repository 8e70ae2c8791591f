"""Runbooks that a test follows, in the situation that each of them is for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.deploys import Fleet
from tests.support.followed_page import Shell, under
from tests.support.postgres_home import program
from tests.support.runs import SCRIPT

__all__ = ["DONE", "MEANS", "OVER", "RUNBOOKS", "SEEN", "Followed", "following"]

RUNBOOKS: Final = Path(__file__).parents[2] / "docs/runbooks"
SEEN: Final = "What you see"
MEANS: Final = "What it means"
DONE: Final = "What to do"
OVER: Final = "How to know that it is over"


class Followed:
    """A runbook, and a shell in which its parts are followed.

    Args:
        page: its file.
        shell: in the plan's directory.
        log: what the commands write to stderr.
    """

    def __init__(self, page: Path, shell: Shell, log: Path) -> None:
        self.log = log
        self._text = page.read_text(encoding="utf-8")
        self._shell = shell

    def follow(self, heading: str) -> list[int]:
        """Do what stands under a heading; return the commands' exit codes."""
        return [*self._shell.follow(under(self._text, heading))]


@contextmanager
def following(page: str, fleet: Fleet) -> Iterator[Followed]:
    """Open a shell with the installed program and PostgreSQL's own, in which a runbook is followed.

    Where the servers' databases are is in its environment, as `PRIMARY` and `SHARD`.

    Args:
        page: the name of the runbook's file.
        fleet: on which it is followed.
    """
    programs = [str(Path(SCRIPT).parent), str(program("psql").parent), os.environ["PATH"]]
    databases = {"PRIMARY": fleet.first.dsn, "SHARD": fleet.last.dsn}
    environment = os.environ | fleet.environment | databases | {"PATH": os.pathsep.join(programs)}
    # Beside what the reader sees.
    errors = fleet.directory.parent / f"{fleet.directory.name}-errors"
    errors.mkdir()
    with Shell.started(fleet.directory, environment, errors=errors) as shell:
        yield Followed(RUNBOOKS / page, shell, errors / "stderr")
