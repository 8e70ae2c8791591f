"""The lease: the row in a database that says whose turn it is, and keeps out of it whoever has lost it.

Table `smooth_migrations_lease` has one row, beside the `django_migrations` that it guards. Nothing is kept in a
session, so it works through a pooler that gives each transaction another one. Times are the server's; SQLite's are
the machine's. The epoch grows by one at each acquisition and is never used again.

A transaction that passed `check` keeps the next owner out until it ends, and one that has not cannot pass it any more:
a process that was paused or cut off commits nothing after its turn. How, and why that does not stop the heartbeat:

PostgreSQL: `check` takes FOR KEY SHARE on the row. An acquisition needs FOR UPDATE, which waits for it; the heartbeat
changes no key, which takes FOR NO KEY UPDATE, and that does not (manual, 13.3.2). PREPARE TRANSACTION keeps the lock:
nobody acquires the lease of a database in doubt, so recovery settles what is prepared first; that needs no lease. The
row tells whether its run is still at work: the coordinator renews it from then on (`Lease.hand_over`).

MySQL and MariaDB know no such modes: there `check` renews the lease itself, holds the row, and publishes the new expiry
with its commit. The heartbeat waits meanwhile. Migrations are no transactions there, so that is as short as recording.
What a process that was killed has left at work there is ended by the next owner; see `session_lock`.

SQLite has one writer. `check` renews as above and takes the file's write lock: as the first statement of a transaction
it also spares it SQLITE_BUSY in the middle. A heartbeat could not write meanwhile, or would make the transaction
fail that has only read so far: there is none. An owner on this machine holds its lease as long as its process lives;
expiry concerns owners elsewhere, such as other containers on the same volume.
"""

from smooth_migrations.lease.errors import LeaseHeld, LeaseLost, SessionLeft
from smooth_migrations.lease.heartbeat import Heartbeat, lease_held
from smooth_migrations.lease.lease import Lease, epoch_of, holder_at_work, release_of
from smooth_migrations.lease.session_lock import SessionLock, end_session_left
from smooth_migrations.protocol.owner import Holder, Owner

__all__ = [
    "Heartbeat",
    "Holder",
    "Lease",
    "LeaseHeld",
    "LeaseLost",
    "Owner",
    "SessionLeft",
    "SessionLock",
    "end_session_left",
    "epoch_of",
    "holder_at_work",
    "lease_held",
    "release_of",
]
