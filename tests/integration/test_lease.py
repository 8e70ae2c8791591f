"""Whose turn it is in a database: one at a time, and nobody who has lost it commits anything."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError
from django.db.transaction import TransactionManagementError
from psycopg import IsolationLevel

from smooth_migrations.lease import Lease, LeaseHeld, LeaseLost, Owner, lease_held
from tests.support.django_connections import ask, connected, in_transaction
from tests.support.histories import Vendor, execute
from tests.support.leases import (
    ELSEWHERE,
    Patience,
    acquire,
    expire,
    fail,
    holder,
    insert,
    insert_checked,
    race,
    the_winner,
    two,
)
from tests.support.new_databases import NewDatabases
from tests.support.postgres_database import PostgresDatabase

SERVERS = pytest.mark.parametrize("every_database", [Vendor.POSTGRESQL, Vendor.MYSQL], indirect=True)
_OWNING = """
import json, sys, threading
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])})
from django.db import connection
from smooth_migrations.lease import Owner, lease_held
with lease_held(connection, Owner.here("run-child"), on_lost=print) as lease:
    print(lease.epoch, flush=True)
    threading.Event().wait()
"""


def test_of_two_that_acquire_at_once_exactly_one_wins_and_the_other_is_told_who(every_database: NewDatabases) -> None:
    database = every_database.new()
    for turn in range(1, 51):
        # The first ones make the table at once as well.
        if turn <= 15:
            execute(database, "DROP TABLE IF EXISTS smooth_migrations_lease")
        winner = the_winner(race(database.django))
        assert holder(database) == (max(1, turn - 14), winner)
        execute(database, "UPDATE smooth_migrations_lease SET owner = ''")


def test_a_second_one_waits_until_the_first_releases(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        first = acquire(one, Owner.here("first"))
        patience = Patience(first.release)
        waited_for: list[str] = []
        second = Lease.acquire(
            other,
            Owner.here("second"),
            wait_s=30,
            pause=patience.pause,
            clock=patience.clock,
            on_wait=lambda holder: waited_for.append(holder.owner.name),
        )
        assert waited_for == ["first"]
        assert patience.now_s < 30
        assert holder(database) == (2, "second")
        assert second.epoch == 2


def test_who_has_waited_long_enough_is_told_by_whom_the_lease_is_held_and_since_when(
    every_database: NewDatabases,
) -> None:
    with two(every_database) as (database, one, other):
        acquire(one, Owner.here("first"))
        patience = Patience()
        with pytest.raises(LeaseHeld) as caught:
            Lease.acquire(other, Owner.here(), wait_s=30, pause=patience.pause, clock=patience.clock)
        error = caught.value
        assert patience.now_s == 30
        assert (error.host, error.pid) == (socket.gethostname(), os.getpid())
        assert abs(error.since - datetime.now(UTC)) < timedelta(minutes=1)
        assert str(error) == (
            "another run holds the lease of the database 'default': "
            f"host {socket.gethostname()}, pid {os.getpid()}, since {error.since:%Y-%m-%d %H:%M:%S} UTC"
        )
        assert not error.in_transaction
        assert holder(database) == (1, "first")


def test_how_long_one_waits_may_depend_on_who_holds_the_lease(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        first = acquire(one, Owner.here("first"))
        patience = Patience()
        with pytest.raises(LeaseHeld):
            Lease.acquire(
                other,
                Owner.here("second"),
                patience_s=lambda holder: 7.0 if holder.owner.name == "first" else 0.0,
                pause=patience.pause,
                clock=patience.clock,
            )
        assert patience.now_s == 7
        second = Lease.acquire(
            other, Owner.here("second"), patience_s=lambda _: 7.0, pause=Patience(first.release).pause
        )
        assert (second.epoch, holder(database)) == (2, (2, "second"))


@pytest.mark.parametrize("is_reaped", [True, False], ids=["reaped", "zombie"])
def test_a_lease_whose_owner_was_killed_on_this_machine_is_free_at_once(
    every_database: NewDatabases,
    is_reaped: bool,  # noqa: FBT001 - a parameter
) -> None:
    with two(every_database) as (database, one, _):
        argv = [sys.executable, "-c", _OWNING, json.dumps(database.django)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            try:
                assert child.stdout
                assert child.stdout.readline() == "1\n"
                with pytest.raises(LeaseHeld, match=f"pid {child.pid}, "):
                    acquire(one)
            finally:
                child.kill()
            os.waitid(os.P_PID, child.pid, os.WEXITED | (0 if is_reaped else os.WNOWAIT))
            acquire(one, Owner.here("heir"))
        assert holder(database) == (2, "heir")


def test_a_process_with_the_pid_of_a_dead_owner_is_not_mistaken_for_it(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        acquire(one, replace(Owner.here("dead"), started="1"))
        acquire(other, Owner.here("heir"))
        assert holder(database) == (2, "heir")


def test_an_owner_elsewhere_is_waited_for_until_its_lease_expires_by_the_servers_clock(
    every_database: NewDatabases,
) -> None:
    with two(every_database) as (database, one, other):
        # To this machine's processes its pid means nothing.
        acquire(one, replace(ELSEWHERE, pid=os.getpid()))
        with pytest.raises(LeaseHeld, match=f"host web-9, pid {os.getpid()}, "):
            acquire(other)
        expire(database, every_database.vendor)
        acquire(other, Owner.here("heir"))
        assert holder(database) == (2, "heir")


def test_an_expired_owner_that_lives_on_this_machine_keeps_its_lease_where_it_has_no_heartbeat(
    every_database: NewDatabases,
) -> None:
    with two(every_database) as (database, one, other):
        acquire(one, Owner.here("alive"))
        expire(database, every_database.vendor)
        if every_database.vendor is Vendor.SQLITE:
            with pytest.raises(LeaseHeld):
                acquire(other)
            assert holder(database) == (1, "alive")
        else:
            acquire(other, Owner.here("heir"))
            assert holder(database) == (2, "heir")


def test_the_epoch_grows_at_each_acquisition_and_never_shrinks(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, _):
        for epoch in (1, 2, 3):
            lease = acquire(one, Owner.here(f"run-{epoch}"))
            assert lease.epoch == epoch
            assert lease.release()
            assert not lease.release()
            assert holder(database) == (epoch, "")
        acquire(one, replace(Owner.here("dead"), started="1"))
        assert acquire(one).epoch == 5


def test_who_lost_the_lease_before_its_transaction_commits_nothing(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        zombie = acquire(one, ELSEWHERE)
        expire(database, every_database.vendor)
        heir = acquire(other, Owner.here("heir"))
        with pytest.raises(LeaseLost) as caught:
            insert_checked(zombie)
        assert caught.value.holder
        assert caught.value.holder.owner == heir.owner
        with pytest.raises(LeaseLost):
            zombie.renew()
        assert not zombie.release()
        assert ask(database, "SELECT * FROM probe") == []
        assert holder(database) == (2, "heir")


@SERVERS
def test_who_lost_the_lease_during_its_transaction_commits_nothing(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        zombie = acquire(one, ELSEWHERE)

        def lose() -> None:
            expire(database, every_database.vendor)
            acquire(other, Owner.here("heir"))

        with pytest.raises(LeaseLost):
            insert_checked(zombie, lose)
        assert ask(database, "SELECT * FROM probe") == []
        assert holder(database) == (2, "heir")


def test_a_checked_transaction_keeps_the_next_owner_out_until_it_has_ended(every_database: NewDatabases) -> None:
    with two(every_database) as (database, one, other):
        slow = acquire(one, ELSEWHERE, ttl_s=0.0)
        with in_transaction(one):
            slow.check()
            insert(one)
            with pytest.raises(LeaseHeld, match="a transaction of its has not ended") as caught:
                acquire(other)
            assert caught.value.in_transaction
        assert ask(database, "SELECT * FROM probe") == [(1,)]
        assert holder(database) == (1, ELSEWHERE.name)
        acquire(other, Owner.here("heir"))
        assert holder(database) == (2, "heir")


def test_a_prepared_transaction_keeps_the_next_owner_out_until_it_is_settled(pg_database: PostgresDatabase) -> None:
    with connected(pg_database.django) as one, connected(pg_database.django) as other:
        lease = acquire(one)
        with one.cursor() as cursor:
            cursor.execute("BEGIN")
            one.in_atomic_block = True
            lease.check()
            cursor.execute("PREPARE TRANSACTION 'in-doubt'")
            one.in_atomic_block = False
        lease.renew()
        assert lease.release()
        with pytest.raises(LeaseHeld) as caught:
            acquire(other)
        assert caught.value.in_transaction
        execute(pg_database, "COMMIT PREPARED 'in-doubt'")
        assert acquire(other).epoch == 2


@pytest.mark.parametrize("level", [None, *IsolationLevel], ids=str)
def test_a_checked_transaction_does_not_stop_the_heartbeat(
    level: IsolationLevel | None, pg_database: PostgresDatabase
) -> None:
    settings = pg_database.django | ({"OPTIONS": {"isolation_level": level}} if level else {})
    beat = "SELECT heartbeat_at FROM smooth_migrations_lease"
    with connected(settings) as one, connected(settings) as other:
        lease = acquire(one)
        seen = [ask(pg_database, beat)]
        with in_transaction(one):
            for _ in range(3):
                lease.check()
                lease.renew(other)
                seen.append(ask(pg_database, beat))
        assert seen == sorted(seen)
        assert len({str(each) for each in seen}) == 4


def test_a_migration_that_sets_the_search_path_does_not_hide_the_lease(pg_database: PostgresDatabase) -> None:
    with connected(pg_database.django) as one:
        lease = acquire(one)
        with in_transaction(one), one.cursor() as cursor:
            cursor.execute("SET LOCAL search_path = ''")
            lease.check()


def test_a_lease_is_not_acquired_in_a_transaction_nor_checked_outside_one(every_database: NewDatabases) -> None:
    with two(every_database) as (_, one, _other):
        lease = acquire(one)
        with pytest.raises(TransactionManagementError):
            lease.check()
        with in_transaction(one):
            for refused in (lambda: acquire(one), lease.renew, lease.release):
                with pytest.raises(TransactionManagementError):
                    refused()


@pytest.mark.parametrize("every_database", [Vendor.SQLITE], indirect=True)
def test_a_file_that_somebody_else_has_locked_is_not_said_to_be_leased(every_database: NewDatabases) -> None:
    with two(every_database) as (_, one, other), in_transaction(one):
        insert(one)
        with pytest.raises(DatabaseError, match="locked"):
            acquire(other)


def test_a_lease_is_released_with_its_block_even_if_the_session_was_lost(pg_database: PostgresDatabase) -> None:
    with connected(pg_database.django) as one:
        with lease_held(one, Owner.here(), on_lost=fail):
            assert holder(pg_database)[1]
            execute(
                pg_database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )
        assert holder(pg_database) == (1, "")


def test_a_lease_that_was_handed_over_is_its_keeper_s_and_that_of_who_works_for_it(
    pg_database: PostgresDatabase,
) -> None:
    with connected(pg_database.django) as one, connected(pg_database.django) as other:
        lease = acquire(one, replace(ELSEWHERE, name="run"))
        worker = Owner.here("run")
        keeper = replace(worker, pid=os.getppid(), started="")
        expire(pg_database, Vendor.POSTGRESQL)
        renewal = lease.hand_over(keeper)
        for _ in range(2):
            with pytest.raises(LeaseHeld, match=f"pid {keeper.pid}, since "):
                acquire(other)
            expire(pg_database, Vendor.POSTGRESQL)
            assert ask(pg_database, renewal) == [(1,)]
        assert acquire(other, worker).epoch == 2
        assert ask(pg_database, renewal) == []
        assert not lease.release()


def test_a_lease_that_was_given_back_for_its_owner_is_lost_to_that_one(pg_database: PostgresDatabase) -> None:
    with connected(pg_database.django) as one, connected(pg_database.django) as other:
        lease = acquire(one, ELSEWHERE)
        execute(pg_database, lease.release_statement())
        assert holder(pg_database) == (1, "")
        with pytest.raises(LeaseLost):
            lease.renew()
        assert acquire(other).epoch == 2
        # Once somebody else has it, it is his.
        execute(pg_database, lease.release_statement())
        assert holder(pg_database)[0] == 2
        with pytest.raises(LeaseHeld):
            acquire(one, ELSEWHERE)


@pytest.mark.parametrize("every_database", [Vendor.SQLITE, Vendor.MYSQL], indirect=True)
def test_elsewhere_than_in_postgresql_nobody_gives_it_back_for_its_owner(every_database: NewDatabases) -> None:
    with two(every_database) as (_database, one, _other):
        assert acquire(one).release_statement() == ""
