"""Undo for a database that held nothing: it is to hold nothing again.

No reverse operation is needed for that, nor a transaction that holds a lock for every relation of a long history.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.recorder import MigrationRecorder

from smooth_migrations.errors import UndoFailed
from smooth_migrations.protocol.failpoints import passing
from smooth_migrations.protocol.values import Before
from smooth_migrations.quoting import backticked, double_quoted

__all__ = ["drop_empty_records", "drop_tables", "look_before", "make_empty_again"]

# What the product keeps for itself is neither counted nor dropped.
_OURS = "smooth\\_%"

# The user's own: nothing of the system's, nothing that an extension brought.
_POSTGRESQL_THINGS = """
    WITH spaces AS (
        SELECT oid, nspname FROM pg_namespace
        WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%'
    ), brought AS (
        SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
    )
    SELECT kind, name FROM (
        SELECT 1 AS rank, CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
                 WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END AS kind,
               format('%%I.%%I', nspname, relname) AS name
        FROM pg_class c JOIN spaces s ON s.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND relname NOT LIKE %(ours)s
          AND NOT EXISTS (SELECT 1 FROM brought WHERE classid = 'pg_class'::regclass AND objid = c.oid)
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                          AND d.refobjid <> c.oid
                          AND d.deptype IN ('a', 'i') AND d.refclassid = 'pg_class'::regclass)
        UNION ALL
        SELECT 3, 'ROUTINE', p.oid::regprocedure::text
        FROM pg_proc p JOIN spaces s ON s.oid = pronamespace
        WHERE proname NOT LIKE %(ours)s
          AND NOT EXISTS (SELECT 1 FROM brought WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
        UNION ALL
        SELECT 2, 'TYPE', t.oid::regtype::text
        FROM pg_type t JOIN spaces s ON s.oid = typnamespace
        WHERE (typtype IN ('e', 'd', 'r') OR typtype = 'c' AND EXISTS (
                  SELECT 1 FROM pg_class WHERE oid = typrelid AND relkind = 'c'))
          AND NOT EXISTS (SELECT 1 FROM brought WHERE classid = 'pg_type'::regclass AND objid = t.oid)
        UNION ALL
        SELECT 2, 'COLLATION', format('%%I.%%I', nspname, collname)
        FROM pg_collation l JOIN spaces s ON s.oid = collnamespace
        WHERE NOT EXISTS (SELECT 1 FROM brought WHERE classid = 'pg_collation'::regclass AND objid = l.oid)
        UNION ALL
        SELECT 4, 'EXTENSION', quote_ident(extname) FROM pg_extension WHERE NOT extname = ANY(%(extensions)s)
        UNION ALL
        SELECT 5, 'SCHEMA', quote_ident(nspname) FROM spaces WHERE NOT nspname = ANY(%(schemas)s)
    ) AS things ORDER BY rank, name
"""
# With the schemas that others cannot be at home in: those on the search path, and what extensions brought.
_POSTGRESQL_FRAME = """
    SELECT array(SELECT extname::text FROM pg_extension),
           array(SELECT nspname::text FROM pg_namespace),
           array(SELECT nspname::text FROM pg_namespace n WHERE nspname = ANY(current_schemas(false)) OR EXISTS (
               SELECT 1 FROM pg_depend WHERE classid = 'pg_namespace'::regclass AND objid = n.oid AND deptype = 'e'))
"""
# Virtual tables first: they own others, which cannot be dropped by themselves.
_SQLITE_THINGS = r"""
    SELECT upper(type), name FROM sqlite_master
    WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\_%%' ESCAPE '\' AND name NOT LIKE %(ours)s ESCAPE '\'
    ORDER BY type = 'table', sql NOT LIKE 'CREATE VIRTUAL%%', name
"""
_MYSQL_THINGS = """
    SELECT CASE table_type WHEN 'VIEW' THEN 'VIEW' WHEN 'SEQUENCE' THEN 'SEQUENCE' ELSE 'TABLE' END, table_name
    FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name NOT LIKE %(ours)s
    UNION ALL
    SELECT routine_type, routine_name FROM information_schema.routines
    WHERE routine_schema = DATABASE() AND routine_name NOT LIKE %(ours)s
    UNION ALL
    SELECT 'EVENT', event_name FROM information_schema.events WHERE event_schema = DATABASE()
"""


_THINGS = {"postgresql": _POSTGRESQL_THINGS, "sqlite": _SQLITE_THINGS, "mysql": _MYSQL_THINGS}


def look_before(connection: BaseDatabaseWrapper) -> Before:
    """Describe a database as an undo must know it. Only reads.

    Without a table, view, routine or type of its user's it is empty, unless it has a schema off the search path, into
    which somebody else may put something meanwhile; a database of another vendor never is.
    """
    before = Before(has_records=MigrationRecorder(connection).has_table())
    if before.has_records or connection.vendor not in _THINGS:
        return before
    own: Sequence[str] = ()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(_POSTGRESQL_FRAME)
            extensions, schemas, own = cursor.fetchone() or ((), (), ())
        before = replace(before, extensions=tuple(extensions), schemas=tuple(schemas))
    return replace(before, is_empty=not _things(connection, replace(before, schemas=tuple(own))))


def make_empty_again(connection: BaseDatabaseWrapper, before: Before, ours: Collection[str]) -> None:
    """Drop everything but the product's own tables; repeating it drops what is left.

    One transaction where DDL is transactional, else statement by statement. Takes ACCESS EXCLUSIVE on each table.

    Args:
        connection: in autocommit.
        before: what the database came with, which stays.
        ours: the tables that the migrations make; any other one that holds rows may be somebody else's.

    Raises:
        UndoFailed: there is such a one; nothing was dropped.
    """
    if foreign := [*_with_rows(connection, ours)]:
        raise UndoFailed(
            f"the database was empty, and now holds rows in tables that no migration makes: {', '.join(foreign)}",
            hint="nothing was dropped: see whose they are, drop what the migrations made, and begin anew",
        )
    with passing("make_empty"), _without_foreign_keys(connection), transaction.atomic(connection.alias):
        while things := _things(connection, before):
            with connection.cursor() as cursor:
                for statement in _drops(connection, things):
                    cursor.execute(statement)


def _with_rows(connection: BaseDatabaseWrapper, ours: Collection[str]) -> Iterator[str]:
    known = {*ours, MigrationRecorder.Migration._meta.db_table}  # noqa: SLF001 - documented, whatever its name
    is_qualified = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        own = [""]
        if is_qualified:
            cursor.execute("SELECT array(SELECT quote_ident(name) FROM unnest(current_schemas(false)) AS name)")
            (own,) = cursor.fetchone() or ([],)
        for kind, name in _things(connection, Before()):
            schema, _, quoted_table = name.rpartition(".") if is_qualified else ("", "", name)
            table = quoted_table.strip('"') if is_qualified else name
            if kind == "TABLE" and not (schema in own and (table in known or _is_shadow(table, known))):
                quoted = name if is_qualified else _quoted(connection, name)
                cursor.execute(f"SELECT 1 FROM {quoted} LIMIT 1")  # noqa: S608 - quoted
                if cursor.fetchone() is not None:
                    yield table


def _is_shadow(table: str, known: Collection[str]) -> bool:
    # SQLite's virtual tables keep their content in tables named after them (SQLite manual, fts5.html, vtab.html).
    return any(table.startswith(f"{name}_") for name in known)


def drop_tables(connection: BaseDatabaseWrapper, names: Collection[str]) -> None:
    """Drop these tables where they are there. Takes ACCESS EXCLUSIVE on each; safe to repeat."""
    cascade = " CASCADE" if connection.vendor == "postgresql" else ""
    with _without_foreign_keys(connection), transaction.atomic(connection.alias), connection.cursor() as cursor:
        for name in sorted(names):
            cursor.execute(f"DROP TABLE IF EXISTS {connection.ops.quote_name(name)}{cascade}")


def drop_empty_records(connection: BaseDatabaseWrapper) -> None:
    """Drop the table in which Django records migrations, unless it records one. Safe to repeat."""
    recorder = MigrationRecorder(connection)
    if recorder.has_table() and not recorder.migration_qs.exists():
        with connection.schema_editor() as editor:
            editor.delete_model(recorder.Migration)


def _things(connection: BaseDatabaseWrapper, before: Before) -> list[tuple[str, str]]:
    names: dict[str, Any] = {"ours": _OURS, "extensions": [*before.extensions], "schemas": [*before.schemas]}
    with connection.cursor() as cursor:
        cursor.execute(_THINGS[connection.vendor], names)
        return [(str(kind), str(name)) for kind, name in cursor.fetchall()]


def _drops(connection: BaseDatabaseWrapper, things: Sequence[tuple[str, str]]) -> Iterator[str]:
    for kind, name in things:
        # What another one took with it is not there any more.
        if connection.vendor == "postgresql":
            yield f"DROP {kind} IF EXISTS {name} CASCADE"
        else:
            yield f"DROP {kind} IF EXISTS {_quoted(connection, name)}"


def _quoted(connection: BaseDatabaseWrapper, name: str) -> str:
    return backticked(name) if connection.vendor == "mysql" else double_quoted(name)


@contextmanager
def _without_foreign_keys(connection: BaseDatabaseWrapper) -> Iterator[None]:
    # PostgreSQL has CASCADE; in SQLite this does nothing within a transaction (SQLite manual, pragma.html).
    if connection.vendor == "postgresql" or not connection.disable_constraint_checking():
        yield
        return
    try:
        yield
    finally:
        connection.enable_constraint_checking()
