"""Acquire, check, renew and release the lease of one database."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from django.db import DatabaseError, Error
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError

from smooth_migrations.errors import is_lock_failure
from smooth_migrations.lease.errors import LeaseHeld, LeaseLost
from smooth_migrations.lease.lost_session import Session, end_session
from smooth_migrations.lease.row import LeaseRow, LeaseTable, can_beat, locks_keys
from smooth_migrations.protocol.owner import Holder, Life, Owner, life_of

__all__ = ["Lease", "epoch_of", "holder_at_work"]

_TTL_S = 15.0
_POLL_S = 0.25
# Two that acquire a free lease at once meet each other's lock for a moment, however little they want to wait.
_PATIENCE_S = 2.0


class Lease:
    """A lease that was acquired; see `acquire`.

    Attributes:
        owner: who holds it.
        epoch: the fencing token: greater than that of any earlier owner.
        connection: the one that it was acquired on.
    """

    def __init__(self, table: LeaseTable, owner: Owner, epoch: int, ttl_s: float) -> None:
        self.owner = owner
        self.epoch = epoch
        self.connection = table.connection
        self._table = table
        self._ttl_s = ttl_s
        self._checked: Session | None = None

    @classmethod
    def acquire(  # noqa: PLR0913 - each is named where it is used
        cls,
        connection: BaseDatabaseWrapper,
        owner: Owner,
        *,
        wait_s: float = 0.0,
        patience_s: Callable[[Holder], float] = lambda _holder: 0.0,
        after: int | None = None,
        ttl_s: float = _TTL_S,
        pause: Callable[[float], None] = time.sleep,
        on_wait: Callable[[Holder], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Acquire the lease of a database, making its table on first use.

        Each statement is a transaction of its own, and only the last one locks the row, without waiting for the
        lock. Not to be repeated by one owner: a second acquisition waits for the first.

        Args:
            connection: in autocommit, because MariaDB's DDL commits whatever is open.
            owner: this process.
            wait_s: how long somebody else is waited for.
            patience_s: the same, if it is longer, for whoever holds it.
            after: the epoch that must have been the last one; None lets any be it.
            ttl_s: how long a heartbeat lasts.
            pause: waits between two looks; what it raises ends the waiting.
            on_wait: told once whom we wait for.
            clock: tells how long we have waited.

        Raises:
            LeaseHeld: somebody else still holds it.
            LeaseLost: somebody has had it since `after`; it is left as it is.
            DatabaseError: the server cannot be asked; or its lock on a lease that nobody ever held stays.
            TransactionManagementError: a transaction is open.
        """
        _refuse_transaction(connection)
        started_s = clock()
        row: LeaseRow | None = None
        while True:
            busy: DatabaseError | None = None
            try:
                table = LeaseTable.of(connection)
                row = table.read_or_insert()
                if after not in {None, row.epoch}:
                    raise LeaseLost(connection.alias, row.holder)
                life = Life.GONE if _is_kept_for(owner, row) else _life(row)
                if _is_free(connection, row, life):
                    # By the epoch, so that nothing is taken from somebody who was not seen.
                    if table.take(row, owner, ttl_s, is_gone=life is Life.GONE):
                        return cls(table, owner, row.epoch + 1, ttl_s)
                    continue
            except DatabaseError as error:
                if not is_lock_failure(error):
                    raise
                busy = error
            least_s = _PATIENCE_S if busy else 0.0
            held_s = patience_s(row.holder) if row is not None and row.is_held else 0.0
            left_s = max(wait_s, least_s, held_s) - (clock() - started_s)
            if left_s <= 0:
                held = _held(connection, row, busy)
                # The server's own error keeps the driver's as its cause, which says what kind of error it is.
                raise held from (held.__cause__ if held is busy else busy)
            if on_wait and row is not None and row.is_held:
                on_wait(row.holder)
                on_wait = None
            pause(min(_POLL_S, left_s))

    def check(self) -> None:
        """Make sure, inside a transaction, that it commits only while the lease is ours.

        Run it last before the commit, outside any savepoint (whose rollback would release the lock), and again
        whenever; on SQLite also first. See the module for its locks. Never blocked by the heartbeat.

        Raises:
            LeaseLost: it is not; roll back.
            DatabaseError: roll back as well; a lock failure may be tried again.
            TransactionManagementError: no transaction is open, so that this would be worth nothing.
        """
        connection = self.connection
        if connection.get_autocommit() and not connection.in_atomic_block:
            raise TransactionManagementError("a lease is checked inside the transaction that depends on it")
        if not locks_keys(connection):
            self._renew(self._table)
            return
        self._checked = self._table.lock_key(self.epoch, self.owner)
        if self._checked is None:
            raise self._lost(self._table)

    def end_left(self) -> None:
        """Make sure that the session that was checked last is at work no more, if that was lost. Idempotent.

        PostgreSQL does not know of it, and may carry out what is still at work, or on its way; see `SessionLock` for
        MariaDB. What that session had prepared stays so.

        Raises:
            DatabaseError: the server cannot be asked, or does not end that session.
        """
        # Where a transaction is open its session was not lost.
        if self._checked is not None and not self.connection.in_atomic_block:
            end_session(self.connection, self._checked)

    def renew(self, connection: BaseDatabaseWrapper | None = None) -> None:
        """Put the expiry off. Locks the row for a moment; repeating it does no harm.

        Args:
            connection: in autocommit; another one than the lease's where that is inside a transaction.

        Raises:
            LeaseLost: it is not ours any more; the row stays as it is.
            DatabaseError: unknown whether it was renewed.
        """
        table = self._table.through(connection) if connection else self._table
        _refuse_transaction(table.connection)
        self._renew(table)

    def hand_over(self, keeper: Owner) -> str:
        """Let another process keep the lease, which is not renewed here any more; return how it renews it. PostgreSQL.

        Args:
            keeper: whose life and whose renewals count from now on. A process that it starts may acquire the lease
                under the same name.

        Raises:
            DatabaseError: unknown whether it was handed over.
        """
        return self._table.hand_over(self.epoch, self.owner, keeper, self._ttl_s)

    def release_statement(self) -> str:
        """Return how another process gives the lease back for this one, which may be frozen; empty but in PostgreSQL.

        It changes nothing once the lease is somebody else's.
        """
        return self._table.release_statement(self.epoch, self.owner)

    def release(self) -> bool:
        """Give the lease back, so that the next owner need not wait; return whether it was ours until now.

        After the transaction has ended. Repeating it does nothing, nor does it touch a successor's lease. A server
        that cannot be asked is not an error: it expires, or this process ends.
        """
        if self.connection.connection is not None:
            _refuse_transaction(self.connection)
        for _attempt in range(2):
            with suppress(Error):
                return self._table.release(self.epoch, self.owner)
            # The session may have been lost with a transaction before this; the second attempt opens another.
            with suppress(Error):
                self.connection.close()
        return False

    def _renew(self, table: LeaseTable) -> None:
        if not table.renew(self.epoch, self.owner, self._ttl_s):
            raise self._lost(table)

    def _lost(self, table: LeaseTable) -> LeaseLost:
        row = table.read()
        return LeaseLost(table.connection.alias, row.holder if row else None)


def holder_at_work(connection: BaseDatabaseWrapper) -> Holder | None:
    """Return who holds the lease of a database at this moment, if anybody does. Only reads."""
    table = LeaseTable.find(connection)
    row = table.read() if table else None
    if row is None or not row.is_held or _is_free(connection, row, _life(row)):
        return None
    return row.holder


def release_of(connection: BaseDatabaseWrapper, name: str) -> None:
    """Give back the lease of a database for an owner that is gone, if one of this name has it. Idempotent.

    Args:
        connection: in autocommit.
        name: the owner's.

    Raises:
        DatabaseError: unknown whether it was given back.
    """
    _refuse_transaction(connection)
    if (table := LeaseTable.find(connection)) is not None:
        table.release_named(name)


def epoch_of(connection: BaseDatabaseWrapper) -> int:
    """Return the epoch of the last turn that anybody has had on a database; 0 where nobody has. Only reads."""
    table = LeaseTable.find(connection)
    row = table.read() if table else None
    return row.epoch if row else 0


def _refuse_transaction(connection: BaseDatabaseWrapper) -> None:
    if connection.in_atomic_block or not connection.get_autocommit():
        raise TransactionManagementError("a lease is acquired, renewed and released outside any transaction")


def _life(row: LeaseRow) -> Life:
    return life_of(row.holder.owner) if row.is_held else Life.GONE


def _is_kept_for(owner: Owner, row: LeaseRow) -> bool:
    """Return whether our coordinator keeps it for the run that we work for, whose earlier worker was lost."""
    keeper = row.holder.owner
    return keeper.name == owner.name and keeper.is_parent


def _is_free(connection: BaseDatabaseWrapper, row: LeaseRow, life: Life) -> bool:
    if life is Life.GONE:
        return True
    return row.is_expired and (life is Life.ELSEWHERE or can_beat(connection))


def _held(connection: BaseDatabaseWrapper, row: LeaseRow | None, busy: DatabaseError | None) -> Exception:
    # PostgreSQL's lock is that of a transaction which checked the lease; SQLite's file may be locked by anybody.
    is_named = row is not None and row.epoch > 0 and (row.is_held or locks_keys(connection))
    if row is None or (busy is not None and not is_named):
        return busy or DatabaseError("the lease could not be read")
    in_transaction = busy is not None and _is_free(connection, row, _life(row))
    return LeaseHeld(connection.alias, row.holder, in_transaction=in_transaction)
