"""A call's turn on a database: nobody else's meanwhile, and the way clear of what a killed call has left."""

from collections.abc import Callable
from contextlib import suppress

from django.db import Error
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.call import Call
from smooth_migrations.errors import UndoFailed
from smooth_migrations.lease import Heartbeat, Holder, Lease, LeaseLost, Owner, SessionLock
from smooth_migrations.own_tables import keep_path, release_path
from smooth_migrations.session import commit_each
from smooth_migrations.undo.journal import UnfinishedCall, unfinished_call

__all__ = ["FOR_ITSELF_S", "Turn"]

FOR_ITSELF_S = 20.0
"""How long a run waits for its own turn to expire, in seconds: a worker that is lost renews it no more."""


class Turn:
    """The lease of a database, kept alive until `end`; see `begin`.

    Attributes:
        epoch: the lease's fencing token; 0 where there is none.
    """

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        lease: Lease | None = None,
        heartbeat: Heartbeat | None = None,
        session_lock: SessionLock | None = None,
    ) -> None:
        self._connection = connection
        self._lease = lease
        self._heartbeat = heartbeat
        self._session_lock = session_lock
        self.epoch = lease.epoch if lease else 0

    @classmethod
    def begin(
        cls,
        connection: BaseDatabaseWrapper,
        call: Call,
        *,
        owner: str | None = None,
        wait_s: float = 0.0,
        patience_s: Callable[[Holder], float] = lambda _holder: 0.0,
        after: int | None = None,
        on_wait: Callable[[Holder], None] | None = None,
        on_unfinished: Callable[[UnfinishedCall], Call] | None = None,
    ) -> "Turn":
        """Take the turn, and take back what a killed call has left in the database.

        Inside somebody else's transaction, and in a database in this process's memory, there is nobody to keep out.

        Args:
            connection: the target's.
            call: to be ended when the lease is lost, and not committed without it.
            owner: the run's name, for those who are kept out.
            wait_s: how long another's turn is waited for.
            patience_s: the same, if it is longer, for whose turn it is.
            after: the epoch of the turn that this one must follow, with nobody's in between.
            on_wait: told once whom we wait for.
            on_unfinished: told of what was left; returns the call that takes it back, or `call` itself to go on with
                it. Without it, it stays.

        Raises:
            LeaseHeld: it is another's turn.
            SessionLeft: it is nobody's, but a session that was left at work cannot be ended.
            LeaseLost: it has been another's since `after`.
            UndoFailed: what was left cannot be taken back.
        """
        if connection.in_atomic_block or _is_in_memory(connection):
            keep_path(connection)
            return cls(connection)
        commit_each(connection)
        keep_path(connection)
        try:
            lease = Lease.acquire(
                connection, Owner.here(owner), wait_s=wait_s, patience_s=patience_s, after=after, on_wait=on_wait
            )
        except BaseException:
            release_path(connection)
            raise

        def lost(loss: LeaseLost) -> None:
            call.interruption.ask(str(loss))

        heartbeat = Heartbeat(lease, lost, application_name=call.options.application_name)
        heartbeat.start()
        session_lock = SessionLock(lease)
        turn = cls(connection, lease, heartbeat, session_lock)
        try:
            session_lock.take()
            if on_unfinished is not None:
                _settle(connection, call, on_unfinished)
        except BaseException:
            turn.end()
            raise
        call.permanent.journal.fence = lease
        return turn

    @property
    def release(self) -> str:
        """The statement by which another process gives the turn back for this one; empty where there is none."""
        return self._lease.release_statement() if self._lease else ""

    def refuse_unless_after(self, epoch: int) -> None:
        """Make sure that nobody else has had a turn since one of this epoch, where there are turns.

        Raises:
            LeaseLost: somebody has.
        """
        if self._lease is not None and self.epoch != epoch + 1:
            raise LeaseLost(self._lease.connection.alias, None)

    def rest(self, keeper: Owner) -> str:
        """Leave the lease to a keeper: a transaction was prepared, and there may be no session for it here any more.

        Returns:
            The statement by which the keeper renews it; empty where it could not be handed over, and expires.
        """
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._lease is not None:
            with suppress(Error):
                return self._lease.hand_over(keeper)
        return ""

    def end(self, *, goes_on: bool = False) -> None:
        """Give the turn back. Repeating it does nothing.

        Args:
            goes_on: whether the session goes on to another turn of the same call, which keeps to the same tables.
        """
        if not goes_on:
            release_path(self._connection)
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._session_lock is not None:
            self._session_lock.release()
        if self._lease is not None:
            with suppress(Error):
                self._lease.release()


def _settle(connection: BaseDatabaseWrapper, call: Call, on_unfinished: Callable[[UnfinishedCall], Call]) -> None:
    """Take back what a killed call has left, or let `call` go on with it; see `Turn.begin`."""
    try:
        unfinished = unfinished_call(connection)
        if unfinished is None:
            return
        from smooth_migrations.undo.built_upon import refuse_what_others_need  # noqa: PLC0415 - few calls are killed

        earlier = on_unfinished(unfinished)
        refuse_what_others_need(connection, unfinished, goes_on=earlier is call)
        earlier.recall(unfinished, goes_on=earlier is call)
    except (UndoFailed, Error):
        raise
    except Exception as failure:
        # Its journal is another release's, or its migrations do not fit the records or one another any more.
        raise UndoFailed(
            f"what a killed call has left cannot be taken back: {type(failure).__name__}: {failure}"
        ) from failure
    if earlier is not call:
        earlier.rollback()


def _is_in_memory(connection: BaseDatabaseWrapper) -> bool:
    check = getattr(connection, "is_in_memory_db", None)
    return bool(check and check())
