"""Chooses what is known of one kind of server; a call needs one of them."""

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.undo.rows.tables import Vendor

__all__ = ["vendor_of"]


def vendor_of(connection: BaseDatabaseWrapper) -> Vendor:
    """Return what is known of the server of a connection, MariaDB, MySQL or PostgreSQL."""
    if connection.vendor == "mysql":
        from smooth_migrations.undo.rows.mysql import MySQL  # noqa: PLC0415 - a call needs one of them

        return MySQL()
    from smooth_migrations.undo.rows.postgresql import PostgreSQL  # noqa: PLC0415 - as above

    return PostgreSQL()
