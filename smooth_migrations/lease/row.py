"""The lease's row, as each vendor's SQL makes, reads and changes it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from django.db import DatabaseError, NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.lease.lost_session import Session
from smooth_migrations.own_tables import find_table, name_of_table
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.owner import Holder, Owner

__all__ = ["LeaseRow", "LeaseTable", "can_beat", "locks_keys"]

_TABLE = "smooth_migrations_lease"
_COLUMNS = """
    id smallint NOT NULL PRIMARY KEY, epoch bigint NOT NULL, owner varchar(200) NOT NULL, host varchar(255) NOT NULL,
    pid bigint NOT NULL, machine varchar(255) NOT NULL, started varchar(40) NOT NULL,
    acquired_at {timestamp} NOT NULL, heartbeat_at {timestamp} NOT NULL, expires_at {timestamp} NOT NULL
"""
_CREATE = "CREATE TABLE IF NOT EXISTS {table} (" + _COLUMNS + "){engine}"
_INSERT = """
    {insert} INTO {table} (id, epoch, owner, host, pid, machine, started, acquired_at, heartbeat_at, expires_at)
    VALUES (1, 0, '', '', 0, '', '', {now}, {now}, {now}){conflict}
"""
_READ = """
    SELECT epoch, owner, host, pid, machine, started, {since}, CASE WHEN expires_at <= {now} THEN 1 ELSE 0 END
    FROM {table} WHERE id = 1
"""
_FREE = "id = 1 AND epoch = %s AND (owner = '' OR expires_at <= {now} OR %s = 1)"
_TAKE = """
    {briefly}UPDATE {table} SET epoch = epoch + 1, owner = %s, host = %s, pid = %s, machine = %s, started = %s,
        acquired_at = {now}, heartbeat_at = {now}, expires_at = {later}
    WHERE {free}
"""
_MINE = "id = 1 AND epoch = %s AND owner = %s"
_RENEW = "UPDATE {table} SET heartbeat_at = {now}, expires_at = {later} WHERE {mine}"
_HAND_OVER = """
    UPDATE {table} SET host = %s, pid = %s, machine = %s, started = %s, heartbeat_at = {now}, expires_at = {later}
    WHERE {mine} RETURNING epoch
"""
_RELEASE = "UPDATE {table} SET owner = '', expires_at = {now} {lightly}WHERE {mine}"
_RELEASE_OF = "UPDATE {table} SET owner = '', expires_at = {now} {lightly}WHERE id = 1 AND owner = %s"
_CHECK = "SELECT pg_backend_pid(), current_setting('application_name') FROM {table} WHERE {mine} FOR KEY SHARE"


class _Dialect(NamedTuple):
    """What the vendors write differently; `later` takes seconds. All are run with parameters, so % is doubled."""

    timestamp: str
    now: str
    later: str
    since: str
    insert: str = "INSERT"
    conflict: str = ""
    engine: str = ""
    briefly: str = ""
    lightly: str = ""
    free: str = _FREE
    locks_keys: bool = False
    beats: bool = True

    def fill(self, template: str, table: str) -> str:
        return template.replace("{free}", self.free).format(**self._asdict(), mine=_MINE, table=table)


_DIALECTS = {
    "postgresql": _Dialect(
        timestamp="timestamptz",
        now="clock_timestamp()",
        later="clock_timestamp() + %s * interval '1 second'",
        since="extract(epoch FROM acquired_at)",
        conflict=" ON CONFLICT DO NOTHING",
        # A release that a crash of the server forgets is that of a process that is gone: it need not wait for the disk.
        lightly="FROM (SELECT set_config('synchronous_commit', 'off', true)) AS lightly ",
        free=f"id = (SELECT id FROM {{table}} WHERE {_FREE} FOR UPDATE NOWAIT)",  # noqa: S608 - a template
        locks_keys=True,
    ),
    "sqlite": _Dialect(
        timestamp="text",
        now="strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
        later="strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', %s || ' seconds')",
        since="(julianday(acquired_at) - 2440587.5) * 86400.0",
        conflict=" ON CONFLICT DO NOTHING",
        beats=False,
    ),
    "mysql": _Dialect(
        timestamp="datetime(6)",
        # CURRENT_TIMESTAMP would jump with daylight saving time.
        now="UTC_TIMESTAMP(6)",
        later="UTC_TIMESTAMP(6) + INTERVAL %s SECOND",
        since="TIMESTAMPDIFF(MICROSECOND, '1970-01-01', acquired_at) / 1000000.0",
        insert="INSERT IGNORE",
        engine=" ENGINE = InnoDB",
        # An owner that was cut off inside a transaction is waited for bit by bit; a comment elsewhere than in MariaDB.
        briefly="/*M! SET STATEMENT innodb_lock_wait_timeout = 1 FOR */ ",
    ),
}


def locks_keys(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a row can be locked so that others change all of it but its key."""
    return _dialect(connection).locks_keys


def can_beat(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a second session may write while a migration's transaction is open."""
    return _dialect(connection).beats


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """The row as it was read.

    Args:
        epoch: of the last acquisition; 0 before the first.
        holder: who holds it, or held it last.
        is_expired: by the server's clock.
    """

    epoch: int
    holder: Holder
    is_expired: bool

    @property
    def is_held(self) -> bool:
        """Whether it has not been released."""
        return bool(self.holder.owner.name)


class LeaseTable:
    """The table of a lease, seen through one connection.

    Args:
        connection: to the database.
        name: as SQL writes it there, with its schema.
    """

    def __init__(self, connection: BaseDatabaseWrapper, name: str) -> None:
        self.connection = connection
        self.name = name

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper) -> Self:
        """Find the table, or make it. Two that make it at once both find it.

        DDL in autocommit: nobody else's transaction may be open on this connection.
        """
        found = cls.find(connection)
        if found is not None:
            return found
        made = cls(connection, name_of_table(connection, _TABLE))
        try:
            made.create()
        except DatabaseError:
            # PostgreSQL looks for the table before it waits for whoever makes it at this moment.
            found = cls.find(connection)
            if found is None:
                raise
        return found or made

    @classmethod
    def find(cls, connection: BaseDatabaseWrapper) -> Self | None:
        """Find the table; None where it was never made. Only reads."""
        found = find_table(connection, _TABLE)
        return None if found is None else cls(connection, found)

    def create(self) -> None:
        """Make the table, without its row, unless it is there."""
        self._change(_CREATE, [])

    def through(self, connection: BaseDatabaseWrapper) -> Self:
        """Return the same table, seen through another connection."""
        return type(self)(connection, self.name)

    def read(self) -> LeaseRow | None:
        """Read the row without a lock, or return None if there is none."""
        row = self._fetch(_READ, [])
        if row is None:
            return None
        epoch, name, host, pid, machine, started, since, is_expired = row
        owner = Owner(name, host, int(pid), machine, started)
        return LeaseRow(int(epoch), Holder(owner, datetime.fromtimestamp(float(since), UTC)), bool(is_expired))

    def read_or_insert(self) -> LeaseRow:
        """Read the row, which is inserted on first use; two that insert it at once both read it."""
        row = self.read()
        if row is None:
            self._change(_INSERT, [])
            row = self.read()
        if row is None:
            raise DatabaseError(f"the row of {self.name} vanishes")
        return row

    def take(self, seen: LeaseRow, owner: Owner, ttl_s: float, *, is_gone: bool) -> bool:
        """Write a new owner, if the epoch is still the one that was seen; return whether it was.

        In PostgreSQL the lock is not waited for, in MariaDB for a second, elsewhere as long as the session's settings
        say; a lock failure means that a transaction of the last owner is open.

        Args:
            seen: what made it seem free.
            owner: the new one.
            ttl_s: until its expiry.
            is_gone: take it even if it has neither expired nor been released.
        """
        values = [owner.name, owner.host, owner.pid, owner.machine, owner.started, ttl_s]
        with passing("lease.acquire"):
            return self._change(_TAKE, [*values, seen.epoch, int(is_gone)]) == 1

    def renew(self, epoch: int, owner: Owner, ttl_s: float) -> bool:
        """Put the expiry off; return whether this owner still has it."""
        return self._change(_RENEW, [ttl_s, epoch, owner.name]) == 1

    def hand_over(self, epoch: int, owner: Owner, keeper: Owner, ttl_s: float) -> str:
        """Let another process answer for the lease; return the statement that did so and renews it. PostgreSQL alone.

        Args:
            epoch: of this owner's acquisition.
            owner: whose name stays: either process may release it.
            keeper: the process.
            ttl_s: until its expiry.
        """
        values = [keeper.host, keeper.pid, keeper.machine, keeper.started, ttl_s, epoch, owner.name]
        renewal = self._composed(_HAND_OVER, values)
        with self.connection.cursor() as cursor:
            cursor.execute(renewal)
        return renewal

    def release(self, epoch: int, owner: Owner) -> bool:
        """Give the lease back; return whether this owner still had it."""
        with passing("lease.release"):
            return self._change(_RELEASE, [epoch, owner.name]) == 1

    def release_named(self, name: str) -> bool:
        """Give the lease back for whichever owner of a name has it; return whether there was one."""
        return self._change(_RELEASE_OF, [name]) == 1

    def release_statement(self, epoch: int, owner: Owner) -> str:
        """Return what `release` would execute; empty but in PostgreSQL."""
        return self._composed(_RELEASE, [epoch, owner.name]) if self.connection.vendor == "postgresql" else ""

    def lock_key(self, epoch: int, owner: Owner) -> Session | None:
        """Keep the next owner out until the transaction ends; return its session, if this owner still has the lease."""
        row = self._fetch(_CHECK, [epoch, owner.name])
        return None if row is None else Session(*row)

    def _composed(self, template: str, params: list[Any]) -> str:
        sql = _dialect(self.connection).fill(template, self.name)
        return str(self.connection.ops.compose_sql(sql, params))  # type: ignore[attr-defined]  # PostgreSQL's has it

    def _change(self, template: str, params: list[Any]) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(_dialect(self.connection).fill(template, self.name), params)
            return int(cursor.rowcount)

    def _fetch(self, template: str, params: list[Any]) -> tuple[Any, ...] | None:
        with self.connection.cursor() as cursor:
            cursor.execute(_dialect(self.connection).fill(template, self.name), params)
            row: tuple[Any, ...] | None = cursor.fetchone()
            return row


def _dialect(connection: BaseDatabaseWrapper) -> _Dialect:
    if connection.vendor not in _DIALECTS:
        raise NotSupportedError(f"no lease can be kept in a database of {connection.display_name}")
    return _DIALECTS[connection.vendor]
