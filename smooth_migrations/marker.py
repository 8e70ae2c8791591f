"""The marker row: which run moved this database last, written in the transaction of its migrations."""

from collections.abc import Collection

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Marker

__all__ = ["make_table", "read_markers", "remove_marker", "write_marker"]

_TABLE = "smooth_migrations_marker"


def make_table(connection: BaseDatabaseWrapper) -> None:
    """Make the markers' table where it is not there yet, outside any project's migration graph. Safe to repeat.

    Where a server commits every change of the schema by itself (MariaDB), this has to come before anything that must
    not be committed yet.
    """
    with connection.cursor() as cursor:
        if _TABLE in connection.introspection.table_names(cursor):
            return
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {_TABLE} ("
            "run_id varchar(64) NOT NULL PRIMARY KEY, database_name text NOT NULL, "
            "epoch bigint NOT NULL, digest varchar(64) NOT NULL, command varchar(16) DEFAULT 'deploy' NOT NULL, "
            "moved_at timestamp DEFAULT CURRENT_TIMESTAMP NOT NULL)"
        )


def write_marker(connection: BaseDatabaseWrapper, database: str, marker: Marker) -> None:
    """Write the marker of a run, so that a lost answer can be settled by looking.

    Called inside the open transaction; one row a run, so repeating it after a retry changes nothing.

    Args:
        connection: the target's, inside its transaction.
        database: the target's name in the plan.
        marker: what is written.
    """
    make_table(connection)
    with passing("mark"), connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {_TABLE} WHERE run_id = %s", [marker.run_id])  # noqa: S608 - a constant name
        cursor.execute(
            f"INSERT INTO {_TABLE} (run_id, database_name, epoch, digest, command) "  # noqa: S608
            "VALUES (%s, %s, %s, %s, %s)",
            [marker.run_id, database, marker.epoch, marker.digest, marker.command],
        )


def read_markers(connection: BaseDatabaseWrapper, runs: Collection[str]) -> tuple[Marker, ...]:
    """Return what these runs have left that have moved this database. Only reads."""
    with connection.cursor() as cursor:
        if not runs or _TABLE not in connection.introspection.table_names(cursor):
            return ()
        cursor.execute(
            f"SELECT run_id, epoch, digest, command FROM {_TABLE} WHERE run_id IN ({', '.join(['%s'] * len(runs))})",  # noqa: S608
            [*runs],
        )
        rows = cursor.fetchall()
    return tuple(Marker(str(run_id), int(epoch), str(digest), str(command)) for run_id, epoch, digest, command in rows)


def remove_marker(connection: BaseDatabaseWrapper, run_id: str) -> None:
    """Take back that a run has moved this database, since that was taken back. Repeating it does nothing."""
    if read_markers(connection, [run_id]):
        with passing("unmark"), connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {_TABLE} WHERE run_id = %s", [run_id])  # noqa: S608
