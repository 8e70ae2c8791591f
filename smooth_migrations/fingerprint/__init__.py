"""The schema fingerprint: taken before a call and compared after its undo, it proves that nothing was left behind."""

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.fingerprint.value import Fingerprint, fingerprint, is_invalid_index_gone
from smooth_migrations.fingerprint.vendor import Vendor

__all__ = ["Fingerprint", "is_invalid_index_gone", "take"]


def take(connection: BaseDatabaseWrapper, *, lock_timeout_ms: int | None = None) -> Fingerprint:
    """Describe a database's schema and the migrations recorded in it.

    Left out are rows, statistics, where counters stand, and what belongs to the product, the server or an extension.
    Only reads, and leaves the session's settings and an open transaction as they were. On PostgreSQL the definitions
    of views and rules wait for an ACCESS EXCLUSIVE lock of somebody else on what they read, in MariaDB and MySQL those
    of tables for one on the metadata, as long as the session's own time-out lets them.

    Args:
        connection: in a transaction or outside; behind a pooler of transactions too.
        lock_timeout_ms: for how long it waits at the most, on PostgreSQL, where that is less than the session's own.

    Returns:
        Empty and not `is_known` for a vendor without a module here.

    Raises:
        DatabaseError: the role may not read `django_migrations`, others did not let go of a lock, or the server is
            gone. On PostgreSQL the transaction lives on unless it is.
    """
    vendor = _vendor(connection.vendor, lock_timeout_ms)
    return Fingerprint(is_known=False) if vendor is None else fingerprint(vendor.describe(connection))


def _vendor(name: str, lock_timeout_ms: int | None) -> Vendor | None:
    # By vendor and not by ENGINE: PostGIS, SpatiaLite and other people's backends are one of these.
    if name == "mysql":
        from smooth_migrations.fingerprint.mysql import MySQL  # noqa: PLC0415 - a call needs one of them

        return MySQL()
    if name == "postgresql":
        from smooth_migrations.fingerprint.postgresql import PostgreSQL  # noqa: PLC0415 - as above

        return PostgreSQL(lock_timeout_ms)
    if name == "sqlite":
        from smooth_migrations.fingerprint.sqlite import SQLite  # noqa: PLC0415 - as above

        return SQLite()
    return None
