"""Keep a lease alive while its owner is at work."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.lease.errors import LeaseLost
from smooth_migrations.lease.lease import Lease
from smooth_migrations.lease.row import can_beat
from smooth_migrations.protocol.owner import Holder, Owner

__all__ = ["Heartbeat", "lease_held"]

_BEAT_S = 5.0
_BEAT_AGAIN_S = 1.0
_STOP_TIMEOUT_S = 2.0


class Heartbeat:
    """A thread that renews a lease until it is stopped, on connections of its own, open for one statement each.

    A fleet of leases therefore needs no second session for each, and nothing has to be kept alive between two beats.
    A beat that fails is tried again soon; whether the lease was lost meanwhile is for `Lease.check` to say. For SQLite
    there is no thread; see the module.

    Args:
        lease: to be renewed.
        on_lost: called once, in the thread, when somebody else has the lease.
        every_s: how often, well below the lease's expiry.
        application_name: of its sessions in `pg_stat_activity`; None leaves what the settings say.

    Attributes:
        lost: why the lease is not ours any more.
        failure: why the last beat failed.
    """

    def __init__(
        self,
        lease: Lease,
        on_lost: Callable[[LeaseLost], None],
        *,
        every_s: float = _BEAT_S,
        application_name: str | None = None,
    ) -> None:
        self.lost: LeaseLost | None = None
        self.failure: Exception | None = None
        self._lease = lease
        self._on_lost = on_lost
        self._every_s = every_s
        self._application_name = application_name
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; the first beat comes after the first interval, so short runs need no second session."""
        if self._thread is None and can_beat(self._lease.connection):
            self._thread = threading.Thread(target=self._beat_on, name="smooth-lease", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread; a server that does not answer it is not waited for. Safe to repeat."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_TIMEOUT_S)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _beat_on(self) -> None:
        while not self._stopping.wait(min(self._every_s, _BEAT_AGAIN_S) if self.failure else self._every_s):
            try:
                self._beat()
                self.failure = None
            except LeaseLost as lost:
                if not self._stopping.is_set():
                    self.lost = lost
                    self._on_lost(lost)
                return
            except Exception as error:  # noqa: BLE001 - a project's receiver of connection_created may raise anything
                self.failure = error

    def _beat(self) -> None:
        # Made here: a connection belongs to the thread that made it.
        connection = self._lease.connection.copy()
        if connection.vendor == "postgresql":
            options = connection.settings_dict["OPTIONS"]
            # The project's pool may have no other session than the one that migrates.
            options.pop("pool", None)
            # A beat that a lost network swallows must not swallow the following ones.
            options.setdefault("connect_timeout", int(self._every_s) + 1)
            options.setdefault("tcp_user_timeout", int(self._every_s * 1000) + 1000)
            if self._application_name:
                options["application_name"] = self._application_name
        try:
            connection.ensure_connection()
            # Whoever hears of a new connection may have begun a transaction, which nobody would commit.
            connection.set_autocommit(True)
            self._lease.renew(connection)
        finally:
            connection.close()


@contextmanager
def lease_held(
    connection: BaseDatabaseWrapper,
    owner: Owner,
    *,
    on_lost: Callable[[LeaseLost], None],
    wait_s: float = 0.0,
    on_wait: Callable[[Holder], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
    application_name: str | None = None,
) -> Iterator[Lease]:
    """Hold the lease of a database, with its heartbeat; release it with the block, at whose end no transaction is open.

    Args:
        connection: see `Lease.acquire`, as for its errors.
        owner: this process.
        on_lost: see `Heartbeat`.
        wait_s: how long somebody else is waited for.
        on_wait: told once whom we wait for.
        pause: waits between two looks.
        application_name: see `Heartbeat`.
    """
    lease = Lease.acquire(connection, owner, wait_s=wait_s, on_wait=on_wait, pause=pause)
    try:
        with Heartbeat(lease, on_lost, application_name=application_name):
            yield lease
    finally:
        lease.release()
