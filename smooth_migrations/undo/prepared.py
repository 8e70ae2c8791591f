"""Prepared transactions of PostgreSQL: a transaction that survives everybody, until it is told how to end."""

from collections.abc import Iterator

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.errors import sqlstate_of
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import PreparedTransaction

__all__ = ["PrepareUnsure", "not_endable", "prepare", "prepared_gids", "prepared_on_server", "settle_prepared"]


class PrepareUnsure(DatabaseError):  # noqa: N818 - named by what is known
    """No answer came to a PREPARE TRANSACTION: nobody here knows whether the transaction stands prepared."""


# Only in the database in which it was prepared can a transaction be ended (PostgreSQL manual, COMMIT PREPARED).
_ALL = """
    SELECT gid, database::text, owner::text, (extract(epoch FROM clock_timestamp() - prepared))::int,
           database = current_database(), gid LIKE 'smooth:%'
    FROM pg_prepared_xacts ORDER BY prepared, gid
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
    return tuple(sorted(each.gid for each in _ours_here(connection)))


def prepared_on_server(connection: BaseDatabaseWrapper) -> tuple[PreparedTransaction, ...]:
    """Return every transaction that stands prepared on a database's server, whoever's, the oldest first. Only reads.

    A server shows all of them to every role.
    """
    if connection.vendor != "postgresql":
        return ()
    with connection.cursor() as cursor:
        cursor.execute(_ALL)
        return tuple(
            PreparedTransaction(str(gid), str(database), str(owner), int(age_s), is_here=is_here, is_ours=is_ours)
            for gid, database, owner, age_s, is_here, is_ours in cursor.fetchall()
        )


def not_endable(connection: BaseDatabaseWrapper) -> Iterator[tuple[str, str, str]]:
    """Yield (gid, owner, the role at hand) of those that the role at hand may not end. Only reads."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, rolsuper FROM pg_roles WHERE rolname = current_user")
        role, is_superuser = cursor.fetchone() or ("", False)
    if not is_superuser:
        yield from ((each.gid, each.owner, str(role)) for each in _ours_here(connection) if each.owner != role)


def _ours_here(connection: BaseDatabaseWrapper) -> list[PreparedTransaction]:
    return [each for each in prepared_on_server(connection) if each.is_ours and each.is_here]


def _literal(text: str) -> str:
    # These statements take no parameters.
    return "'{}'".format(text.replace("'", "''"))
