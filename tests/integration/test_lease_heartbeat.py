"""A lease is kept alive while its owner is at work, also through a pooler."""

import re
import threading
from collections.abc import Iterator

import pytest

from smooth_migrations.aliases import Aliases
from smooth_migrations.lease import Heartbeat, LeaseHeld, LeaseLost
from smooth_migrations.protocol.values import OtherAliases
from tests.support.django_connections import ask, connected, in_transaction
from tests.support.histories import SqliteDatabase, Vendor, execute
from tests.support.leases import (
    ELSEWHERE,
    acquire,
    expire,
    fail,
    holder,
    insert,
    insert_checked,
    is_alive,
    race,
    the_winner,
    two,
    until,
)
from tests.support.new_databases import NewDatabases
from tests.support.pgbouncer import PgBouncer, why_not
from tests.support.postgres_database import PostgresDatabase
from tests.support.postgres_server import PostgresServer

SERVERS = pytest.mark.parametrize("every_database", [Vendor.POSTGRESQL, Vendor.MYSQL], indirect=True)


@SERVERS
def test_the_heartbeat_puts_the_expiry_off_and_leaves_no_session(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        lease = acquire(one, ELSEWHERE)
        for _ in range(3):
            expire(database, every_database.vendor)
            assert not is_alive(database)
            with Heartbeat(lease, fail, every_s=0.01) as heartbeat:
                until(lambda: is_alive(database))
            assert heartbeat.lost is None
        with pytest.raises(LeaseHeld):
            acquire(other)
        assert not isinstance(database, SqliteDatabase)
        # A session's end is seen a moment later.
        until(lambda: database.server.sessions(database.name) == 2)


def test_the_heartbeat_needs_no_session_of_a_pool_that_has_none_left(pg_database: PostgresDatabase) -> None:
    pool = {"min_size": 1, "max_size": 1, "timeout": 0.1}
    with connected({**pg_database.django, "OPTIONS": {"pool": pool}}) as connection:
        try:
            lease = acquire(connection, ELSEWHERE)
            expire(pg_database, Vendor.POSTGRESQL)
            with Heartbeat(lease, fail, every_s=0.01):
                until(lambda: is_alive(pg_database))
        finally:
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's has it


@SERVERS
def test_the_heartbeat_tells_once_that_somebody_else_has_the_lease(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        lease = acquire(one, ELSEWHERE)
        told: list[LeaseLost] = []
        is_told = threading.Event()

        def tell(lost: LeaseLost) -> None:
            told.append(lost)
            is_told.set()

        expire(database, every_database.vendor)
        heir = acquire(other)
        with Heartbeat(lease, tell, every_s=0.01) as heartbeat:
            assert is_told.wait(30)
        assert told == [heartbeat.lost]
        assert told[0].holder
        assert told[0].holder.owner == heir.owner
        assert re.search("was lost to host .*, pid [0-9]+, since ", str(told[0]))


@SERVERS
def test_the_heartbeat_goes_on_after_a_failure(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, _):
        lease = acquire(one)
        with Heartbeat(lease, fail, every_s=0.01) as heartbeat:
            execute(database, "ALTER TABLE smooth_migrations_lease RENAME TO smooth_away")
            until(lambda: heartbeat.failure is not None)
            execute(database, "ALTER TABLE smooth_away RENAME TO smooth_migrations_lease")
            until(lambda: heartbeat.failure is None)
            expire(database, every_database.vendor)
            until(lambda: is_alive(database))
        lease.renew()


@SERVERS
def test_the_heartbeat_is_not_drawn_into_the_transactions_of_a_call(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, _):
        lease = acquire(one)
        aliases = Aliases(one, mode=OtherAliases.ALLOW, bind_default=False, at_work=lambda: None)
        with aliases.guarded(), Heartbeat(lease, fail, every_s=0.5) as heartbeat:
            expire(database, every_database.vendor)
            until(lambda: is_alive(database) or heartbeat.failure is not None)
            assert heartbeat.failure is None


@pytest.fixture
def pooled(pg_server: PostgresServer) -> Iterator[PgBouncer]:
    if reason := why_not():
        pytest.skip(reason)
    with PgBouncer(pg_server, pool_size=3) as pooler:
        yield pooler


def test_the_lease_needs_no_session_of_its_own(pooled: PgBouncer, pg_database: PostgresDatabase) -> None:
    settings = pooled.django(pg_database.name)
    execute(pg_database, "CREATE TABLE probe (id integer)")
    with connected(settings) as one, connected(settings) as other, connected(settings) as third:
        lease = acquire(one, ELSEWHERE)
        with Heartbeat(lease, fail, every_s=0.01), in_transaction(one):
            lease.check()
            insert(one)
            expire(pg_database, Vendor.POSTGRESQL)
            until(lambda: is_alive(pg_database))
            with pytest.raises(LeaseHeld, match="host web-9"):
                acquire(other)
        # Whatever the pooler gave to whom, nothing is left on its sessions.
        assert lease.release()
        heir = acquire(third)
        with pytest.raises(LeaseLost):
            insert_checked(lease)
        assert holder(pg_database) == (2, heir.owner.name)
        assert ask(pg_database, "SELECT * FROM probe") == [(1,)]


def test_of_two_that_acquire_at_once_through_a_pooler_exactly_one_wins(
    pooled: PgBouncer, pg_database: PostgresDatabase
) -> None:
    for turn in range(1, 21):
        winner = the_winner(race(pooled.django(pg_database.name)))
        assert holder(pg_database) == (turn, winner)
        execute(pg_database, "UPDATE smooth_migrations_lease SET owner = ''")
