"""A run of the program whose processes are stopped, as those of a machine that was suspended, and wake up again."""

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import psutil

from tests.support.deploys import LAST, Fleet

if TYPE_CHECKING:
    from tests.support.runs import Running

__all__ = ["Frozen", "on_servers", "without_kiosk"]

_KIOSK = '[databases.kiosk]\nproject = "one"\nalias = "kiosk"\n'


class Frozen:
    """A run that is stopped at a statement until it is let go on.

    Args:
        fleet: over which.

    Attributes:
        run: the run; to be set when it has been started.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._family: list[psutil.Process] = []
        self.run: Running

    def freeze(self) -> None:
        """Stop every process of the run, and let its leases expire."""
        process = psutil.Process(self.run.process.pid)
        self._family = [process, *process.children(recursive=True)]
        while True:
            for each in self._family:
                each.suspend()
            # One that stands still while it writes keeps everybody from the file; such a moment is not the one meant.
            with (
                suppress(sqlite3.OperationalError),
                closing(sqlite3.connect(self._fleet.directory / ".smooth/journal.db", timeout=0.1)) as journal,
                journal,
            ):
                journal.execute("UPDATE lease SET expires_s = 0")
                break
            self.go_on()
        for database in (self._fleet.first, self._fleet.last):
            with database.connect() as session:
                session.execute("UPDATE smooth_migrations_lease SET expires_at = clock_timestamp() - interval '1 s'")

    def go_on(self) -> None:
        """Let them all go on."""
        for each in self._family:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def without_kiosk(fleet: Fleet) -> None:
    """Leave SQLite out of a plan: there a lease is never taken from a process of this machine that is there."""
    plan = fleet.directory / "deploy.toml"
    text = plan.read_text()
    assert _KIOSK in text
    plan.write_text(text.replace(_KIOSK, "").replace('"primary", "kiosk"', '"primary"'))


def on_servers(dumps: dict[str, str]) -> dict[str, str]:
    """Return what was written down of the databases that such a plan moves."""
    return {name: dumps[name] for name in ("primary", LAST)}
