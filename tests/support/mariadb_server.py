"""Run a real MariaDB server for as long as a `with` block."""

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.postgres_home import Home
from tests.support.processes import kill_family

if TYPE_CHECKING:
    from MySQLdb.connections import Connection

__all__ = ["MariadbServer", "why_not"]

_GUARD = Path(__file__).with_name("postgres_guard.py")
# Debian keeps servers where only root's PATH looks.
_PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
_SERVER, _INSTALL = "mariadbd", "mariadb-install-db"
# What the latter calls; Debian has it in a package of the client.
_DEFAULTS = "my_print_defaults"
_USER = "tests"
_START_ATTEMPTS = 5
_STOP_TIMEOUT_S = 30
_POLL_S = 0.02
# Little disk and memory; a directory made with these must be started with them.
_SMALL: Mapping[str, str | int] = {
    "innodb-autoextend-increment": 1,
    "innodb-buffer-pool-size": "32M",
    "innodb-data-file-path": "ibdata1:8M:autoextend",
    "innodb-log-file-size": "16M",
    "innodb-temp-data-file-path": "ibtmp1:4M:autoextend",
    # Kernels bound the memory of asynchronous requests for all servers of an account together.
    "innodb-use-native-aio": 0,
}
# Nobody will miss the data: no durability, and no tidying up at the end.
_THROW_AWAY: Mapping[str, str | int] = {
    "innodb-fast-shutdown": 2,
    "innodb-flush-log-at-trx-commit": 0,
    "innodb-flush-method": "nosync",
    "sync-frm": 0,
}
# Each DDL statement waits for the disk whatever is set; a file system in memory makes it 20 times as fast.
_MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private directory in it
_ENOUGH_BYTES = 2**30
# As Debian's configuration has it, which is not read: the program by itself would speak latin1.
_AS_PACKAGED: Mapping[str, str | int] = {
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
}


def why_not() -> str | None:
    """Return why no server can be run here and how that is mended, or None if one can."""
    missing = [name for name in (_SERVER, _INSTALL, _DEFAULTS) if shutil.which(name, path=_PLACES) is None]
    if missing:
        return (
            f"{', '.join(missing)} not found: install MariaDB 10.6 or newer with its client library's headers "
            "(Debian: mariadb-server-core mariadb-client-core libmariadb-dev gcc pkg-config), then `make test`"
        )
    if importlib.util.find_spec("MySQLdb") is None:
        return (
            "mysqlclient is not installed: it is built where MariaDB's headers are "
            "(Debian: libmariadb-dev gcc pkg-config), then `make test`"
        )
    return None


class MariadbServer:
    """A server with its own directory and port on 127.0.0.1 and a password of its own; it ends however its owner ends.

    Args:
        settings: further server settings, as for `mariadbd --NAME=VALUE`.
    """

    host = "127.0.0.1"
    user = _USER

    def __init__(self, *, settings: Mapping[str, str | int] | None = None) -> None:
        self.port = 0
        self.password = secrets.token_urlsafe(18)
        self._settings = {**_SMALL, **_THROW_AWAY, **_AS_PACKAGED, **(settings or {})}
        self._home: Home | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = Home.create("smooth-mariadb-", programs=_program(_INSTALL).parent, parent=_in_memory())
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._home is not None:
            self._home.remove()
            self._home = None

    @property
    def directory(self) -> Path:
        """The directory that holds everything this server writes; gone after the `with` block."""
        if self._home is None:
            raise RuntimeError("the server exists inside its `with` block alone")
        return self._home.directory

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return int((self.directory / "pid").read_text())

    def start(self) -> None:
        """Start the server and return when it accepts connections; a port once found is kept."""
        keep_port = self.port != 0
        for _ in range(_START_ATTEMPTS):
            if not keep_port:
                self.port = _free_port()
            if self._launch():
                return
        raise RuntimeError(f"MariaDB did not start:\n{self._log.read_text(errors='replace')[-4000:]}")

    def stop(self) -> None:
        """Stop the server and wait for its end; open transactions are rolled back."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # the server may have ended by itself
            self._guard.stdin.write(b"immediate\n")
        if not _exited(self._guard, _STOP_TIMEOUT_S):
            self.kill()
        self._release()

    def kill(self) -> None:
        """End the server with SIGKILL, as a machine that loses its power would."""
        if self._guard is None:
            return
        kill_family(self.pid)
        self._release()

    def dsn(self, dbname: str) -> str:
        """Return a URL for one database, password included."""
        return f"mysql://{self.user}:{self.password}@{self.host}:{self.port}/{dbname}"

    def django(self, dbname: str) -> dict[str, Any]:
        """Return one value of Django's `DATABASES`; it can be written as JSON."""
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": dbname,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": str(self.port),
        }

    @contextmanager
    def connect(self, dbname: str = "") -> Iterator["Connection"]:
        """Open a session that commits each statement by itself, closed with the block."""
        import MySQLdb  # noqa: PLC0415 - not everywhere installed

        with closing(
            MySQLdb.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                database=dbname,
                charset="utf8mb4",
                autocommit=True,
            )
        ) as connection:
            yield connection

    def create_database(self, name: str) -> None:
        """Create a database."""
        with self.connect() as session:
            session.query(f"CREATE DATABASE `{name}`")

    def drop_database(self, name: str) -> None:
        """Drop a database with its sessions, whose locks would be waited for; a missing one is no error."""
        for session_id in self._sessions(name):
            # It may have ended by itself.
            with suppress(_driver_error()), self.connect() as session:
                session.query(f"KILL {session_id}")
        with self.connect() as session:
            session.query(f"DROP DATABASE IF EXISTS `{name}`")

    def sessions(self, dbname: str) -> int:
        """Count the client sessions connected to a database."""
        return len(self._sessions(dbname))

    def _sessions(self, dbname: str) -> list[int]:
        with self.connect() as session, session.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [dbname])
            return [int(row[0]) for row in cursor.fetchall()]

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _initialise(self) -> None:
        assert self._home is not None
        self._home.run(
            _INSTALL,
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            # Another server that starts removes what it takes for left-over tables from the directory it shares.
            f"--tmpdir={self.directory}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *_options(_SMALL),
        )
        # Run at each start, before anybody may connect.
        first = self.directory / "first.sql"
        first.touch(mode=0o600)
        first.write_text(
            f"CREATE OR REPLACE USER {_USER}@'{self.host}' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL ON *.* TO {_USER}@'{self.host}' WITH GRANT OPTION;\n"
            f"DROP USER IF EXISTS root@'{self.host}', root@'::1';\n"
        )
        self._home.give(first)

    def _launch(self) -> bool:
        assert self._home is not None
        settings: dict[str, str | int] = {
            **self._settings,
            "bind-address": self.host,
            "datadir": str(self.directory / "data"),
            "init-file": str(self.directory / "first.sql"),
            "pid-file": str(self.directory / "pid"),
            "port": self.port,
            "skip-name-resolve": 1,
            "socket": str(self.directory / "socket"),
            "tmpdir": str(self.directory),
        }
        server = [str(_program(_SERVER)), "--no-defaults", *_options(settings)]
        account = [str(number) for number in self._home.account or ("", "")]
        with self._log.open("a") as log:
            # A session of its own keeps a Ctrl-C at the terminal for the owner, who then stops the server in order.
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_GUARD), str(self.directory), *account, *server],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                bufsize=0,
                start_new_session=True,
            )
        while not _exited(self._guard, _POLL_S):
            with suppress(_driver_error()), self.connect():
                return True
        self._release()
        return False

    def _release(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.wait()
            self._guard.stdin.close()
        self._guard = None


def _program(name: str) -> Path:
    found = shutil.which(name, path=_PLACES)
    if found is None:
        raise RuntimeError(why_not())
    return Path(found)


def _in_memory() -> Path | None:
    if not os.access(_MEMORY, os.W_OK | os.X_OK) or shutil.disk_usage(_MEMORY).free < _ENOUGH_BYTES:
        return None
    return _MEMORY


def _options(settings: Mapping[str, str | int]) -> list[str]:
    return [f"--{name}={value}" for name, value in settings.items()]


def _driver_error() -> type[Exception]:
    import MySQLdb  # noqa: PLC0415 - not everywhere installed

    return MySQLdb.OperationalError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exited(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    return process.returncode is not None
