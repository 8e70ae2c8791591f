"""What ships a log elsewhere: the daemons with their files of `configs/`, and who receives what they send."""

import json
import os
import pwd
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Self

from tests.support.debian import Unavailable, installed, unpacked
from tests.support.leases import until
from tests.support.processes import kill_family

__all__ = [
    "CONFIGS",
    "Journald",
    "Receiver",
    "configuration",
    "rotate",
    "running_journald",
    "running_rsyslog",
    "running_syslog_ng",
    "write_lines",
]

CONFIGS: Final = Path(__file__).parents[2] / "configs/observability"
_PATIENCE_S: Final = 60.0

# Writes events as a deploy does: so many, then on until the log file has been moved, and so many again.
_WRITER: Final = """
import os, signal, sys
from contextlib import suppress
from pathlib import Path
from smooth_orchestrator.logs import LogFormat, LogLevel, bind_run, configure, get_logger
from smooth_orchestrator.secrets import Masker

path, half = Path(sys.argv[1]), int(sys.argv[2])
configure(LogFormat.JSON, LogLevel.INFO, path, stream=open(os.devnull, "w"), masker=Masker())
bind_run("r1", "shop")
written = 0

def write():
    global written
    long = "x" * (20_000 if written % 500 == 0 else 3)
    text = f"line {written} of 'many' <b> \\u2028\\x00\\x1b[31m\\n \\"ü🐘\\" \\\\ {long}"
    get_logger().error(
        "migration.failed", database=f"shards:shard_{written % 7}", app="orders", migration="0007_total",
        direction="forwards", duration_ms=written + 0.125, error=ValueError(text),
    )
    written += 1

def inode():
    with suppress(FileNotFoundError):
        return path.stat().st_ino

first = inode()
for _ in range(half):
    write()
print("half", flush=True)
while inode() in {None, first}:
    write()
for _ in range(half):
    write()
print(written, flush=True)
"""


class Receiver:
    """Listens on a port of its own, and keeps every line that comes."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._changed = threading.Condition()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread that accepts, which closing alone would not.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many lines have come, for so long and no longer, and return all that have."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lines) >= count, timeout=_PATIENCE_S)
            return [json.loads(line) for line in self._lines]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines, suppress(OSError):
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()


def configuration(name: str, directory: Path, port: int = 0) -> str:
    """Return a file of `configs/observability`, changed where its comments say so: to what is in a directory."""
    text = (CONFIGS / name).read_text()
    account = pwd.getpwuid(os.geteuid()).pw_name
    for there, here in {
        "/var/log/smooth-orchestrator": str(directory),
        "logs.example.com": "127.0.0.1",
        "6514": str(port),
        "su shop shop": f"su {account} root",
    }.items():
        text = text.replace(there, here)
    return text


def write_lines(log_file: Path, half: int, receiver: Receiver) -> int:
    """Write events to a log file that logrotate moves meanwhile; return how many, at least two halves.

    The file is moved once the receiver has heard of it: no shipper finds one that was there for less than a second.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, log_file, str(half)], stdout=subprocess.PIPE, text=True
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "half\n"
            receiver.wait_for(1)
            rotate(log_file.parent)
            return int(writer.stdout.readline())
        finally:
            kill_family(writer.pid)


def rotate(directory: Path) -> None:
    """Have logrotate rotate the logs in a directory, now.

    Raises:
        Unavailable: it is not installed.
    """
    file = directory / "logrotate.conf"
    file.write_text(configuration("logrotate", directory))
    # It obeys nobody's file that others may write to, and nothing but the mode says so.
    file.chmod(0o644)
    program = installed("logrotate", "logrotate")
    subprocess.run([program.path, "--force", "--state", directory / "rotated", file], check=True)


@contextmanager
def running_rsyslog(directory: Path, port: int) -> Iterator[None]:
    """Run rsyslog over the logs in a directory for the length of a context.

    Raises:
        Unavailable: it is not installed.
    """
    program = installed("rsyslogd", "rsyslog")
    file = directory / "rsyslog.conf"
    file.write_text(f'global(workDirectory="{directory}")\n{configuration("rsyslog.conf", directory, port)}')
    words: list[str | Path] = [program.path, "-n", "-f", file, "-i", directory / "rsyslog.pid"]
    checked = subprocess.run([*words, "-N1"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    with _running(words):
        yield


@contextmanager
def running_syslog_ng(directory: Path, port: int) -> Iterator[None]:
    """Run syslog-ng over the logs in a directory for the length of a context; as `running_rsyslog` otherwise."""
    program = unpacked("usr/sbin/syslog-ng", "syslog-ng-core", "usr/lib/syslog-ng")
    file = directory / "syslog-ng.conf"
    file.write_text(configuration("syslog-ng.conf", directory, port))
    own = {"persist-file": "persist", "control": "control", "pidfile": "pid"}
    words: list[str | Path] = [program.path, "--foreground", "--no-caps", f"--cfgfile={file}"]
    words += [f"--{option}={directory / f'syslog-ng.{name}'}" for option, name in own.items()]
    [modules] = (program.root / "usr/lib/syslog-ng").glob("*.*/")
    with _running([*words, f"--module-path={modules}"], program.environment):
        yield


class Journald:
    """systemd's journal, as a daemon of a test's own.

    Args:
        pid: of the daemon, whose mounts the programs that speak to it are given.
    """

    def __init__(self, pid: int) -> None:
        self._inside = ("nsenter", f"--mount=/proc/{pid}/ns/mnt")

    def take(self, words: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        """Run a program to its end, with its stderr connected to the journal, as in a unit of systemd."""
        with subprocess.Popen(
            words, cwd=directory, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as program:
            subprocess.run([*self._inside, "systemd-cat", "--identifier=smooth"], stdin=program.stderr, check=True)

    def entries(self) -> list[dict[str, Any]]:
        """Return what was filed, in its order."""
        subprocess.run([*self._inside, "journalctl", "--sync"], check=True, capture_output=True)
        words = [*self._inside, "journalctl", "--identifier=smooth", "--output=json", "--all", "--no-pager"]
        found = subprocess.run(words, check=True, capture_output=True, text=True)
        return [json.loads(line) for line in found.stdout.splitlines()]


@contextmanager
def running_journald(directory: Path) -> Iterator[Journald]:
    """Run systemd's journal for the length of a context, with a /run of its own: the machine's own sees nothing of it.

    Raises:
        Unavailable: it is not installed, or mounts cannot be hidden from the machine.
    """
    installed("systemd-cat", "systemd")
    run = directory / "run"
    for name in ("systemd/journal", "log/journal"):
        (run / name).mkdir(parents=True)
    steps = 'mount --bind "$1" /run && exec setpriv --pdeathsig KILL /lib/systemd/systemd-journald'
    words: list[str | Path] = ["unshare", "--mount", "--propagation", "private", "sh", "-c", steps, "sh", run]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as daemon:
        assert daemon.stderr is not None
        try:
            until(lambda: (run / "systemd/journal/stdout").is_socket() or daemon.poll() is not None)
            if daemon.poll() is not None:
                raise Unavailable(f"systemd's journal cannot be run here: {daemon.stderr.read().strip()}")
            yield Journald(daemon.pid)
        finally:
            kill_family(daemon.pid)


@contextmanager
def _running(words: "list[str | Path]", environment: "dict[str, str] | None" = None) -> Iterator[None]:
    with subprocess.Popen(words, env=os.environ | (environment or {}), stdin=subprocess.DEVNULL) as daemon:
        try:
            yield
            assert daemon.poll() is None, "the daemon has ended by itself"
        finally:
            kill_family(daemon.pid)
