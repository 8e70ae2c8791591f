"""Empty databases of one kind, as many as a test asks for."""

from contextlib import ExitStack
from pathlib import Path

from tests.support.dump import dump
from tests.support.histories import Database, SqliteDatabase, Vendor
from tests.support.mariadb_database import temporary_mariadb_database
from tests.support.mariadb_server import MariadbServer
from tests.support.postgres_database import temporary_database
from tests.support.postgres_server import PostgresServer

__all__ = ["NewDatabases"]


class NewDatabases:
    """Makes databases, which are dropped with the stack.

    Args:
        server: where they are, or None for SQLite files.
        directory: for SQLite files.
        stack: what they live in.
    """

    def __init__(self, server: PostgresServer | MariadbServer | None, directory: Path, stack: ExitStack) -> None:
        self._server = server
        self._directory = directory
        self._stack = stack
        self._count = 0

    @property
    def vendor(self) -> Vendor:
        """Their kind."""
        match self._server:
            case None:
                return Vendor.SQLITE
            case MariadbServer():
                return Vendor.MYSQL
            case PostgresServer():
                return Vendor.POSTGRESQL

    def new(self) -> Database:
        """Make one."""
        if isinstance(self._server, MariadbServer):
            return self._stack.enter_context(temporary_mariadb_database(self._server))
        if self._server:
            return self._stack.enter_context(temporary_database(self._server))
        self._count += 1
        path = self._directory / f"{self._count}.sqlite3"
        path.touch()
        return SqliteDatabase(path)

    def dump(self, database: Database) -> str:
        """Return all that a ROLLBACK brings back; the servers' sequences go on counting."""
        return dump(database.dsn, sequences=self.vendor is Vendor.SQLITE)
