"""The product's own tables as statements name them: the same ones, wherever a migration makes its session look.

`SET search_path` in a migration lasts as long as its session, or its transaction. What is written after it must stand
where whoever looks with another session will find it, so a turn keeps to the schemas that it has begun with.
"""

from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper

from smooth_migrations.quoting import double_quoted

__all__ = ["find_table", "keep_path", "name_of_table", "release_path"]

# A catalogue query rather than to_regclass, which looks along the path of the moment.
_FIND = """
    SELECT format('%%I.%%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relname = %s AND nspname = ANY(%s::name[]) ORDER BY array_position(%s::text[], nspname::text) LIMIT 1
"""
_PATH = "SELECT current_schemas(false)::text[]"


@dataclass(frozen=True, slots=True)
class _Path:
    session: object
    schemas: list[str]


# Of the connection itself, which `django.db.connection` stands for as well.
_KEPT = "smooth_path"


def keep_path(connection: BaseDatabaseWrapper) -> None:
    """Keep to the schemas in which the session looks now, until `release_path`. Of one session the first ones count.

    Only reads; of other databases than PostgreSQL it does nothing.
    """
    if connection.vendor == "postgresql":
        connection.ensure_connection()
        kept = _kept(connection)
        if kept is None or kept.session is not connection.connection:
            setattr(connection, _KEPT, _Path(connection.connection, _current(connection)))


def release_path(connection: BaseDatabaseWrapper) -> None:
    """Look along the session's own path again. Repeating it does nothing."""
    if _kept(connection) is not None:
        setattr(connection, _KEPT, None)


def find_table(connection: BaseDatabaseWrapper, table: str) -> str | None:
    """Return a table of ours as SQL names it; None where it was never made. Only reads."""
    if connection.vendor != "postgresql":
        with connection.cursor() as cursor:
            return table if table in connection.introspection.table_names(cursor) else None
    schemas = _schemas(connection)
    with connection.cursor() as cursor:
        cursor.execute(_FIND, [table, schemas, schemas])
        row = cursor.fetchone()
    return str(row[0]) if row else None


def name_of_table(connection: BaseDatabaseWrapper, table: str) -> str:
    """Return a table of ours as SQL names it, where it stands or is to be made. Only reads."""
    found = find_table(connection, table)
    if found is not None or connection.vendor != "postgresql":
        return found or table
    # Without a schema the server says so itself.
    return ".".join([*map(double_quoted, _schemas(connection)[:1]), table])


def _schemas(connection: BaseDatabaseWrapper) -> list[str]:
    kept = _kept(connection)
    return _current(connection) if kept is None else kept.schemas


def _kept(connection: BaseDatabaseWrapper) -> _Path | None:
    kept: _Path | None = getattr(connection, _KEPT, None)
    return kept


def _current(connection: BaseDatabaseWrapper) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(_PATH)
        row = cursor.fetchone()
    return [*row[0]] if row else []
