"""Prepared transactions of PostgreSQL: a transaction that survives everybody, until it is told how to end."""

from collections.abc import Iterator

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import sqlstate_of
from smooth_migrations.protocol.failpoints import passing

__all__ = ["PrepareUnsure", "not_endable", "prepare", "prepared_gids", "prepared_in_words", "settle_prepared"]


class PrepareUnsure(DatabaseError):  # noqa: N818 - named by what is known
    """No answer came to a PREPARE TRANSACTION: nobody here knows whether the transaction stands prepared."""


# Only in the database in which it was prepared can a transaction be ended (PostgreSQL manual, COMMIT PREPARED).
_OURS = r"""
    SELECT gid, (extract(epoch FROM clock_timestamp() - prepared))::int, owner::text FROM pg_prepared_xacts
    WHERE database = current_database() AND gid LIKE 'smooth:%' ORDER BY gid
"""


def prepare(connection: BaseDatabaseWrapper, gid: str) -> None:
    """Prepare the transaction that is open on a connection, which has none afterwards. Its locks stay.

    Args:
        connection: in a transaction.
        gid: the transaction's name, under 200 bytes.

    Raises:
        DatabaseError: it cannot be prepared (0A000), or the server has no room for it (53200); it is rolled back.
        PrepareUnsure: the connection was lost meanwhile.
    """
    with passing("prepare"), connection.cursor() as cursor:
        try:
            cursor.execute(f"PREPARE TRANSACTION {_literal(gid)}")
        except DatabaseError as error:
            if sqlstate_of(error) is None:
                raise PrepareUnsure(str(error)) from error
            raise


def settle_prepared(connection: BaseDatabaseWrapper, gid: str, *, commits: bool) -> None:
    """Commit a prepared transaction, or roll it back.

    Args:
        connection: to its database, in autocommit, with the role that prepared it or a superuser's.
        gid: its name.
        commits: whether it is committed.

    Raises:
        DatabaseError: it is not there (42704), or the role may not (42501).
    """
    with passing("settle_prepared"), connection.cursor() as cursor:
        cursor.execute(f"{'COMMIT' if commits else 'ROLLBACK'} PREPARED {_literal(gid)}")


def prepared_gids(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """Return the prepared transactions of this program's in this database. Only reads."""
    return tuple(gid for gid, _age_s, _owner in _found(connection))


def prepared_in_words(connection: BaseDatabaseWrapper) -> tuple[str, ...]:
    """Return the same with their age and their owner, for people. Only reads."""
    return tuple(f"{gid}, prepared {age_s} s ago by {owner}" for gid, age_s, owner in _found(connection))


def not_endable(connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str, str]]:
    """Yield (gid, owner, the role at hand) of those that the role at hand may not end. Only reads."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user")
        role, is_superuser = cursor.fetchone() or ("", False)
    if not is_superuser:
        yield from ((gid, owner, str(role)) for gid, _age_s, owner in _found(connection) if owner != role)


def _found(connection: BaseDatabaseWrapper) -> list[tuple[str, int, str]]:
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(_OURS)
        return [(str(gid), int(age_s), str(owner)) for gid, age_s, owner in cursor.fetchall()]


def _literal(text: str) -> str:
    # These statements take no parameters.
    return "'{}'".format(text.replace("'", "''"))
