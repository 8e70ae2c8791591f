"""What the tests of the lease have in common."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.lease import Lease, LeaseHeld, LeaseLost, Owner
from tests.support.django_connections import ask, connected, in_transaction
from tests.support.histories import Database, Vendor, execute
from tests.support.new_databases import NewDatabases

__all__ = [
    "ELSEWHERE",
    "Patience",
    "acquire",
    "expire",
    "fail",
    "holder",
    "insert",
    "insert_checked",
    "is_alive",
    "race",
    "the_winner",
    "two",
    "until",
]

ELSEWHERE = Owner("run-elsewhere", "web-9", 4711, "another machine", "1")
_EXPIRE = {
    Vendor.POSTGRESQL: "UPDATE smooth_migrations_lease SET expires_at = now() - interval '1 second'",
    Vendor.SQLITE: "UPDATE smooth_migrations_lease SET expires_at = '2001-01-01 00:00:00.000'",
    Vendor.MYSQL: "UPDATE smooth_migrations_lease SET expires_at = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND",
}


class Patience:
    """A clock that goes on only while somebody waits, and something that happens meanwhile."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None, *, leap_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._meanwhile = meanwhile
        self._leap_s = leap_s

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def pause(self, duration_s: float) -> None:
        """Let it go on."""
        self.now_s += max(duration_s, self._leap_s)
        self._meanwhile()


def acquire(connection: BaseDatabaseWrapper, owner: Owner | None = None, *, ttl_s: float = 15.0) -> Lease:
    """Acquire a lease without spending time on waiting."""
    patience = Patience(leap_s=10)
    return Lease.acquire(connection, owner or Owner.here(), ttl_s=ttl_s, pause=patience.pause, clock=patience.clock)


def fail(lost: LeaseLost) -> None:
    """Say what was lost; an error in a thread fails its test."""
    raise lost


def expire(database: Database, vendor: Vendor) -> None:
    execute(database, _EXPIRE[vendor])


def holder(database: Database) -> tuple[int, str]:
    """Return the epoch and the owner's name as another session sees them."""
    rows = ask(database, "SELECT epoch, owner FROM smooth_migrations_lease")
    assert len(rows) == 1
    return int(rows[0][0]), str(rows[0][1])


def is_alive(database: Database) -> bool:
    """Return whether a heartbeat came after the last `expire`."""
    return ask(database, "SELECT 1 FROM smooth_migrations_lease WHERE expires_at > heartbeat_at") != []


def until(condition: Callable[[], bool], *, patience_s: float = 30) -> None:
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s


@contextmanager
def two(databases: NewDatabases) -> Iterator[tuple[Database, BaseDatabaseWrapper, BaseDatabaseWrapper]]:
    """A new database with a table `probe`, and two connections that give up early where a file is locked."""
    database = databases.new()
    execute(database, "CREATE TABLE probe (id integer)")
    settings = database.django
    if databases.vendor is Vendor.SQLITE:
        settings["OPTIONS"] = {"timeout": 0.05}
    with connected(settings) as one, connected(settings) as other:
        yield database, one, other


def insert(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO probe VALUES (1)")


def insert_checked(lease: Lease, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Insert a row under a lease, in a transaction."""
    with in_transaction(lease.connection):
        insert(lease.connection)
        meanwhile()
        lease.check()


def race(settings: dict[str, Any]) -> list[tuple[str, Lease | LeaseHeld]]:
    """Let two acquire at the same moment, and return what each got."""
    start = threading.Barrier(2)
    got: list[tuple[str, Lease | LeaseHeld]] = []

    def compete(name: str) -> None:
        with connected(settings) as connection:
            connection.ensure_connection()
            start.wait()
            try:
                got.append((name, Lease.acquire(connection, Owner.here(name))))
            except LeaseHeld as error:
                got.append((name, error))

    threads = [threading.Thread(target=compete, args=[name]) for name in ("one", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 2
    return got


def the_winner(got: list[tuple[str, Lease | LeaseHeld]]) -> str:
    winners = [name for name, result in got if isinstance(result, Lease)]
    held = [result.holder.owner.name for _, result in got if isinstance(result, LeaseHeld)]
    assert len(winners) == 1
    assert held == winners
    return winners[0]
