"""Debian's cron, as a daemon with one table of a test's own, and as the environment in which it runs a command."""

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.processes import kill_family

__all__ = ["ACCOUNT", "ENVIRONMENT", "command_of", "running_cron", "why_not"]

ACCOUNT: Final = pwd.getpwuid(os.geteuid())
"""The account of this process."""

ENVIRONMENT: Final[Mapping[str, str]] = {
    "HOME": ACCOUNT.pw_dir,
    "LOGNAME": ACCOUNT.pw_name,
    "PATH": "/usr/bin:/bin",
    "SHELL": "/bin/sh",
}
"""All that a command finds that cron runs; see cron(8) and crontab(5) of Debian."""

# Debian keeps daemons where only root's PATH looks.
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
_PRIVATELY = ("unshare", "--mount", "--propagation", "private")
# What the daemon reads and writes on a machine.
_TABLES, _USERS_TABLES, _OLD_TABLE, _PIDS = "/etc/cron.d", "/var/spool/cron/crontabs", "/etc/crontab", "/run"


def why_not() -> str | None:
    """Return why no daemon can be run here and how that is mended, or None if one can."""
    if shutil.which("cron", path=_PLACES) is None:
        return "cron not found: install it (Debian: cron), then `make test-all`"
    if os.geteuid() != 0:
        return "cron is run by root alone"
    done = subprocess.run([*_PRIVATELY, "true"], capture_output=True, text=True, check=False)
    return f"cron's places cannot be hidden from the machine: {done.stderr.strip()}" if done.returncode else None


def command_of(table: str) -> str:
    """Return the command of a table for /etc/cron.d that has one entry, which comes every minute."""
    [entry] = [line for line in table.splitlines() if line and not line.startswith("#")]
    *times, _account, command = entry.split(maxsplit=6)
    assert times == ["*"] * 5
    assert "%" not in command, "cron would make a line's end of it"
    return command


@contextmanager
def running_cron(directory: Path, table: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Start the daemon over one table in /etc/cron.d; it and what it has started end with the block.

    It has mounts of its own, in which there is nothing of the machine's tables: neither sees the other's, and nothing
    stays behind, however this process ends.

    Args:
        directory: for the table, and for what the daemon writes.
        table: what stands in it.

    Yields:
        The daemon.
    """
    for name in ("tables", "users", "pids"):
        (directory / name).mkdir(parents=True)
    for path, text in ((directory / "tables/smooth-finalise", table), (directory / "old", "")):
        path.write_text(text)
        path.chmod(0o644)
    mounts = {"tables": _TABLES, "users": _USERS_TABLES, "old": _OLD_TABLE, "pids": _PIDS}
    steps = [f"mount --bind {shlex.quote(str(directory / name))} {place}" for name, place in mounts.items()]
    script = " && ".join([*steps, "exec setpriv --pdeathsig KILL cron -f"])
    environment = os.environ | {"PATH": _PLACES}
    with subprocess.Popen([*_PRIVATELY, "sh", "-c", script], env=environment, stdin=subprocess.DEVNULL) as daemon:
        try:
            yield daemon
        finally:
            kill_family(daemon.pid)
