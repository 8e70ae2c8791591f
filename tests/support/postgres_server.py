"""Run a real PostgreSQL server for as long as a `with` block."""

import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.support.postgres_home import Home
from tests.support.processes import kill_family

__all__ = ["THROW_AWAY", "PostgresServer"]

THROW_AWAY: dict[str, str | int] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
}
"""Settings for a server whose data nobody will miss: no durability, little memory."""

_GUARD = Path(__file__).with_name("postgres_guard.py")
_START_ATTEMPTS = 5
_STOP_TIMEOUT_S = 30
_POLL_S = 0.02
_READY_LINE = 7  # of postmaster.pid, counted from 0; the same line that pg_ctl waits for


class PostgresServer:
    """A server with its own directory and port on 127.0.0.1, without a Unix socket; it ends however its owner ends.

    Args:
        auth: `trust` asks nobody for a password; `scram` gives the superuser `postgres` a random one.
        max_connections: client sessions that the server accepts.
        max_prepared_transactions: 0 turns two-phase commit off.
        settings: further server settings, as for `postgres -c`; see `THROW_AWAY`.
        programs: the directory of another server's programs than the wheel's.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        *,
        auth: Literal["trust", "scram"] = "trust",
        max_connections: int = 100,
        max_prepared_transactions: int = 64,
        settings: Mapping[str, str | int] | None = None,
        programs: Path | None = None,
    ) -> None:
        self.port = 0
        self.password = secrets.token_urlsafe(18) if auth == "scram" else None
        self._settings: dict[str, str | int] = {
            "listen_addresses": self.host,
            "unix_socket_directories": "",
            "max_connections": max_connections,
            "max_prepared_transactions": max_prepared_transactions,
            **(settings or {}),
        }
        self._programs = programs
        self._home: Home | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._home = Home.create(programs=self._programs)
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("immediate")
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
    def data(self) -> Path:
        """The server's data directory."""
        return self.directory / "data"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return int(self._status_lines()[0])

    def start(self) -> None:
        """Start the server and return when it accepts connections; a port once found is kept."""
        keep_port = self.port != 0
        for _ in range(_START_ATTEMPTS):
            if not keep_port:
                self.port = _free_port()
            if self._launch():
                return
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text(errors='replace')[-4000:]}")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and wait for its end: `fast` in good order, `immediate` with a crash to recover from."""
        if self._guard is None:
            return
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # the server may have ended by itself
            self._guard.stdin.write(f"{mode}\n".encode())
        if not _exited(self._guard, _STOP_TIMEOUT_S):
            self.kill()
        self._release()

    def kill(self) -> None:
        """End every process of the server with SIGKILL, as a machine that loses its power would."""
        if self._guard is None:
            return
        kill_family(self.pid)
        self._release()

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server and start it again on the same port."""
        self.stop(mode)
        self.start()

    def dsn(self, dbname: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """Return a URL for one database; the superuser's password is filled in."""
        secret = password if password is not None or user != "postgres" else self.password
        credentials = user if secret is None else f"{user}:{secret}"
        return f"postgresql://{credentials}@{self.host}:{self.port}/{dbname}"

    def asyncpg(self, dbname: str = "postgres") -> dict[str, Any]:
        """Return the keyword arguments of `asyncpg.connect` for one database."""
        return {
            "host": self.host,
            "port": self.port,
            "user": "postgres",
            "password": self.password,
            "database": dbname,
        }

    def django(self, dbname: str = "postgres") -> dict[str, Any]:
        """Return one value of Django's `DATABASES`; it can be written as JSON."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": dbname,
            "USER": "postgres",
            "PASSWORD": self.password or "",
            "HOST": self.host,
            "PORT": str(self.port),
        }

    @contextmanager
    def connect(self, dbname: str = "postgres") -> Iterator[psycopg.Connection]:
        """Open a session that commits each statement by itself, closed with the block."""
        with psycopg.connect(make_conninfo(self.dsn(dbname)), autocommit=True) as connection:
            yield connection

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database, as a copy of `template` where one is given."""
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement = sql.SQL("{} TEMPLATE {}").format(statement, sql.Identifier(template))
        with self.connect() as connection:
            connection.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database with its sessions and prepared transactions; a missing one is no error."""
        gids = self.prepared(name)
        if gids:
            with self.connect(name) as connection:
                for gid in gids:
                    connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
        with self.connect() as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def sessions(self, dbname: str) -> int:
        """Count the client sessions connected to a database."""
        with self.connect() as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = %s AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
                [dbname],
            ).fetchone()
        return int(row[0]) if row else 0

    def prepared(self, dbname: str | None = None) -> list[str]:
        """Return the gids of the prepared transactions of one database, or of all."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT gid FROM pg_prepared_xacts WHERE database = coalesce(%s, database) ORDER BY gid", [dbname]
            ).fetchall()
        return [row[0] for row in rows]

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _status_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _initialise(self) -> None:
        assert self._home is not None
        arguments = ["--pgdata", str(self.data), "--username", "postgres", "--encoding", "UTF8", "--locale", "C"]
        arguments += ["--no-sync", "--no-instructions"]
        if self.password is None:
            self._home.run("initdb", *arguments, "--auth", "trust")
            return
        password_file = self.directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self._home.give(password_file)
        self._home.run("initdb", *arguments, "--auth", "scram-sha-256", "--pwfile", str(password_file))
        password_file.unlink()

    def _launch(self) -> bool:
        assert self._home is not None
        options = [f"--{name}={value}" for name, value in {**self._settings, "port": self.port}.items()]
        server = [str(self._home.bin / "postgres"), "-D", str(self.data), *options]
        account = [str(number) for number in self._home.account or ("", "")]
        left_by_a_crash = self._status_lines()
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
            lines = self._status_lines()
            if lines != left_by_a_crash and len(lines) > _READY_LINE and lines[_READY_LINE].strip() == "ready":
                return True
        self._release()
        return False

    def _release(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.wait()
            self._guard.stdin.close()
        self._guard = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exited(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return True
