"""Database backends of other packages under which an undo cannot be promised, told by what they do."""

from django.db.backends.base.base import BaseDatabaseWrapper

__all__ = ["why_not_undone"]


def why_not_undone(connection: BaseDatabaseWrapper) -> str | None:
    """Return why a call through this connection could not be taken back as a whole, or None. Asks no server."""
    engine = connection.settings_dict["ENGINE"]
    if hasattr(connection, "set_tenant"):
        return f"{engine} keeps a schema for each tenant, and a call moves and takes back only one schema"
    if connection.features.can_rollback_ddl and not connection.schema_editor(atomic=True).atomic_migration:
        # It was asked for a transaction, and will open none.
        return f"the schema editor of {engine} commits each statement by itself, so that a broken operation would stay"
    return None
