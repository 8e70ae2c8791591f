"""The marker row: which run moved this database last, written in the transaction of its migrations."""

from collections.abc import Collection

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.own_tables import find_table, name_of_table
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Marker

__all__ = ["make_table", "others_marks", "read_markers", "remove_marker", "write_marker"]

_TABLE = "smooth_migrations_marker"
# Callers choose run ids: two deploys that share a database may have used the same one, and one deploy may use two that
# differ by case, which MariaDB's usual collations take for one.
_EXACT = {"mysql": " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"}
_IS = "deploy = %s AND run_id = %s"


def make_table(connection: BaseDatabaseWrapper) -> str:
    """Make the markers' table where it is not there yet, outside any project's migration graph. Safe to repeat.

    Where a server commits every change of the schema by itself (MariaDB), this has to come before anything that must
    not be committed yet.

    Returns:
        Its name, as SQL writes it.
    """
    found = find_table(connection, _TABLE)
    if found is not None:
        return found
    table = name_of_table(connection, _TABLE)
    exact = _EXACT.get(connection.vendor, "")
    with connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {table} ("
            f"deploy varchar(255){exact} NOT NULL, run_id varchar(64){exact} NOT NULL, database_name text NOT NULL, "
            "epoch bigint NOT NULL, digest varchar(64) NOT NULL, command varchar(16) DEFAULT 'deploy' NOT NULL, "
            "moved_at timestamp DEFAULT CURRENT_TIMESTAMP NOT NULL, PRIMARY KEY (deploy, run_id))"
        )
    return table


def write_marker(connection: BaseDatabaseWrapper, deploy: str, database: str, marker: Marker) -> None:
    """Write the marker of a run, so that a lost answer can be settled by looking.

    Called inside the open transaction; one row a run, so repeating it after a retry changes nothing.

    Args:
        connection: the target's, inside its transaction.
        deploy: the run's deploy.
        database: the target's name in the plan.
        marker: what is written.
    """
    table = make_table(connection)
    with passing("mark"), connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table} WHERE {_IS}", [deploy, marker.run_id])  # noqa: S608 - constant names
        cursor.execute(
            f"INSERT INTO {table} (deploy, run_id, database_name, epoch, digest, command) "  # noqa: S608
            "VALUES (%s, %s, %s, %s, %s, %s)",
            [deploy, marker.run_id, database, marker.epoch, marker.digest, marker.command],
        )


def read_markers(connection: BaseDatabaseWrapper, deploy: str, runs: Collection[str]) -> tuple[Marker, ...]:
    """Return what these runs of a deploy have left that have moved this database. Only reads."""
    rows = _read(connection, runs)
    return tuple(marker for whose, marker in rows if whose == deploy)


def others_marks(connection: BaseDatabaseWrapper, deploy: str, runs: Collection[str]) -> tuple[str, ...]:
    """Return the other deploys by whose runs of these ids this database was moved. Only reads."""
    return tuple(sorted({whose for whose, _marker in _read(connection, runs)} - {deploy}))


def _read(connection: BaseDatabaseWrapper, runs: Collection[str]) -> list[tuple[str, Marker]]:
    table = find_table(connection, _TABLE) if runs else None
    if table is None:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT deploy, run_id, epoch, digest, command FROM {table} "  # noqa: S608 - a constant name
            f"WHERE run_id IN ({', '.join(['%s'] * len(runs))})",
            [*runs],
        )
        rows = cursor.fetchall()
    return [(str(row[0]), Marker(str(row[1]), int(row[2]), str(row[3]), str(row[4]))) for row in rows]


def remove_marker(connection: BaseDatabaseWrapper, deploy: str, run_id: str) -> None:
    """Take back that a run has moved this database, since that was taken back. Repeating it does nothing."""
    if read_markers(connection, deploy, [run_id]):
        table = name_of_table(connection, _TABLE)
        with passing("unmark"), connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table} WHERE {_IS}", [deploy, run_id])  # noqa: S608 - constant names
