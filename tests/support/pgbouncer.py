"""Run a real PgBouncer in transaction mode in front of a PostgreSQL server, for as long as a `with` block."""

import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.postgres_home import Home
from tests.support.postgres_server import PostgresServer
from tests.support.processes import kill_family

__all__ = ["PgBouncer", "why_not"]

_GUARD = Path(__file__).with_name("postgres_guard.py")
_PROGRAM = "pgbouncer"
# Debian keeps servers where only root's PATH looks.
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
_START_ATTEMPTS = 5
_STOP_TIMEOUT_S = 30
_POLL_S = 0.02
_SETTINGS = """
[databases]
* = host={server.host} port={server.port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
ignore_startup_parameters = extra_float_digits
"""


def why_not() -> str | None:
    """Return why no pooler can be run here and how that is mended, or None if one can."""
    if shutil.which(_PROGRAM, path=_PLACES) is None:
        return f"{_PROGRAM} not found: install PgBouncer (Debian: {_PROGRAM}), then `make test`"
    return None


class PgBouncer:
    """A pooler that gives each transaction whichever session is free; it ends however its owner ends.

    Args:
        server: which asks for no password.
        pool_size: sessions that all clients of a database share.
    """

    host = "127.0.0.1"

    def __init__(self, server: PostgresServer, *, pool_size: int) -> None:
        self.port = 0
        self._server = server
        self._pool_size = pool_size
        self._home: Home | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = Home.create("smooth-pgbouncer-", programs=_program().parent)
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        if self._home is not None:
            self._home.remove()
            self._home = None

    def django(self, dbname: str) -> dict[str, Any]:
        """Return one value of Django's `DATABASES`, through the pooler."""
        return {**self._server.django(dbname), "HOST": self.host, "PORT": str(self.port)}

    def _start(self) -> None:
        assert self._home is not None
        for _ in range(_START_ATTEMPTS):
            self.port = _free_port()
            if self._launch(self._home):
                return
        raise RuntimeError(f"PgBouncer did not start:\n{_log(self._home).read_text(errors='replace')[-4000:]}")

    def _launch(self, home: Home) -> bool:
        settings = home.directory / "pgbouncer.ini"
        settings.write_text(_SETTINGS.format(server=self._server, port=self.port, pool_size=self._pool_size))
        home.give(settings)
        account = [str(number) for number in home.account or ("", "")]
        with _log(home).open("a") as log:
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_GUARD),
                    str(home.directory),
                    *account,
                    str(_program()),
                    str(settings),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )
        while not _exited(self._guard, _POLL_S):
            with (
                suppress(psycopg.OperationalError),
                psycopg.connect(host=self.host, port=self.port, user="postgres", dbname="postgres"),
            ):
                return True
        self._release()
        return False

    def _stop(self) -> None:
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # it may have ended by itself
            self._guard.stdin.write(b"immediate\n")
        if not _exited(self._guard, _STOP_TIMEOUT_S):
            kill_family(self._guard.pid)
        self._release()

    def _release(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.wait()
            self._guard.stdin.close()
        self._guard = None


def _program() -> Path:
    found = shutil.which(_PROGRAM, path=_PLACES)
    if found is None:
        raise RuntimeError(why_not())
    return Path(found)


def _log(home: Home) -> Path:
    return home.directory / "pgbouncer.log"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exited(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    return process.returncode is not None
