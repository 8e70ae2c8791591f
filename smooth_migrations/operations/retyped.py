"""A column that gets another type, by a second one of that type that was made, filled and indexed before.

It takes the first one's place with all that this has, and is the last of its table's columns from then on.
"""

from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import AlterField
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.shadow import Shadow, checks_of, found_by, has_many_rows, indexes_of, rows_of
from smooth_migrations.rewrites import rewrites

__all__ = ["RetypeField"]

# Whatever is not given to the second column: keys and what refers to them, sequences, views, policies, triggers,
# generated columns, what is set for the column alone or for an index, and what a domain gives rows of its own.
_MORE: Final = r"""
    SELECT relkind <> 'r' OR relforcerowsecurity OR attidentity <> '' OR attgenerated <> '' OR attinhcount <> 0
        OR EXISTS (SELECT FROM unnest(attoptions) AS option WHERE NOT starts_with(option, 'pg_attver='))
        OR coalesce(attstattarget, -1) >= 0
        OR attcompression <> '' OR attstorage <> typstorage
        OR EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhparent, inhrelid))
        OR EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid)
        OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal AND tgname NOT LIKE 'smooth\_%%')
        OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = c.oid AND attnum = ANY (conkey)
                   AND (contype IN ('p', 'f', 'x') OR condeferrable OR NOT convalidated))
        OR EXISTS (SELECT FROM pg_constraint WHERE confrelid = c.oid AND attnum = ANY (confkey))
        OR EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND (indisreplident OR indisclustered OR NOT indisvalid))
        OR EXISTS (SELECT FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = c.oid
                   AND refobjsubid = attnum AND classid <> 'pg_constraint'::regclass
                   AND NOT EXISTS (SELECT FROM pg_index WHERE classid = 'pg_class'::regclass AND indexrelid = objid)
                   AND NOT EXISTS (SELECT FROM pg_attrdef a WHERE classid = 'pg_attrdef'::regclass AND a.oid = objid
                                   AND adnum = attnum))
        OR EXISTS (SELECT FROM pg_index JOIN pg_class i ON i.oid = indexrelid
                   WHERE indrelid = c.oid AND (i.reltablespace <> 0 OR obj_description(i.oid, 'pg_class') IS NOT NULL))
        OR EXISTS (SELECT FROM pg_constraint p WHERE conrelid = c.oid AND obj_description(p.oid) IS NOT NULL)
        OR coalesce((SELECT typtype <> 'b' FROM pg_type WHERE oid = to_regtype(%s)), true)
    FROM pg_class c JOIN pg_attribute ON attrelid = c.oid JOIN pg_type t ON t.oid = atttypid
    WHERE attname = %s AND c.oid = to_regclass(%s)
"""
_OWN: Final = """
    SELECT attnotnull, (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum),
        col_description(attrelid, attnum), (
            SELECT array_agg(format('%%s (%%I) ON TABLE %%s TO %%s%%s', privilege_type, attname, attrelid::regclass,
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END) ORDER BY privilege_type, grantee)
            FROM aclexplode(attacl)
        ), (
            SELECT array_agg(conname ORDER BY conname) FROM pg_constraint
            WHERE conrelid = attrelid AND attnum = ANY (conkey) AND contype = 'u'
        )
    FROM pg_attribute WHERE attname = %s AND attrelid = to_regclass(%s)
"""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a column has, but for its type and its place.

    Args:
        is_not_null: whether it takes no NULL.
        default: in SQL.
        comment: as it is.
        grants: what is granted on it alone, in SQL.
        uniques: the names of its unique constraints.
        indexes: as `indexes_of` returns them.
        checks: as `checks_of` does.
    """

    is_not_null: bool
    default: str | None
    comment: str | None
    grants: tuple[str, ...]
    uniques: tuple[str, ...]
    indexes: tuple[tuple[str, bool, str], ...]
    checks: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, connection: BaseDatabaseWrapper, table: str, column: str) -> "_Facts":
        """Return what it has now. Only reads."""
        [row] = rows_of(connection, _OWN, column, connection.ops.quote_name(table))
        is_not_null, default, comment, grants, uniques = row
        return cls(
            bool(is_not_null),
            default,
            comment,
            tuple(grants or ()),
            tuple(uniques or ()),
            tuple(indexes_of(connection, table, column)),
            tuple(checks_of(connection, table, column)),
        )


class RetypeField(AlterField):
    """Give a field's column another type, and nothing else."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Do it. Takes ACCESS EXCLUSIVE on the table: for changes of the catalogue where the second column is ready."""
        connection = schema_editor.connection
        if not schema_editor.collect_sql:
            shadow = self.shadow(app_label, connection, from_state, to_state)
            if shadow.is_ready(connection) and _swap(schema_editor, shadow):
                return
            from smooth_migrations.undo.ground import drop_ground  # noqa: PLC0415 - few calls give a column a type

            # Nothing is to know the column when it gets its type after all.
            drop_ground(connection, [(connection.ops.quote_name(shadow.table), shadow.name)])
        super().database_forwards(app_label, schema_editor, from_state, to_state)

    def shadow(
        self, app_label: str, connection: BaseDatabaseWrapper, before: ProjectState, after: ProjectState
    ) -> Shadow:
        """Return the second column; whether it is there is another question. Nothing is asked of the database."""
        old = before.apps.get_model(app_label, self.model_name)._meta  # noqa: SLF001 - public
        new = after.apps.get_model(app_label, self.model_name)._meta  # noqa: SLF001 - public
        column: Any = old.get_field(self.name)
        return Shadow(old.db_table, column.column, str(new.get_field(self.name).db_type(connection)))

    def may_swap(
        self, app_label: str, connection: BaseDatabaseWrapper, before: ProjectState, after: ProjectState
    ) -> bool:
        """Return whether a second column could take the first one's place, and the table is large. Only reads."""
        states = [state.apps.get_model(app_label, self.model_name) for state in (before, after)]
        fields: list[Any] = [model._meta.get_field(self.name) for model in states]  # noqa: SLF001 - public
        parts = [{**field.db_parameters(connection), "type": ""} for field in fields]
        model = before.models[app_label, self.model_name_lower]
        if parts[0] != parts[1] or not any(rewrites(self, model, connection)):
            return False
        shadow = self.shadow(app_label, connection, before, after)
        table = connection.ops.quote_name(shadow.table)
        [(has_more,)] = rows_of(connection, _MORE, shadow.kind, shadow.column, table) or [(True,)]
        return not has_more and has_many_rows(connection, table)


def _swap(editor: BaseDatabaseSchemaEditor, shadow: Shadow) -> bool:
    """Let the second column take the first one's place; return whether it has all that this had, or undo it."""
    connection = editor.connection
    savepoint = transaction.savepoint(connection.alias)
    shadow.let_go(editor)
    had = _Facts.of(connection, shadow.table, shadow.column)
    _replace(editor, shadow, had)
    if _Facts.of(connection, shadow.table, shadow.column) != had:
        transaction.savepoint_rollback(savepoint, connection.alias)
        return False
    transaction.savepoint_commit(savepoint, connection.alias)
    return True


def _replace(editor: BaseDatabaseSchemaEditor, shadow: Shadow, had: _Facts) -> None:
    connection = editor.connection
    table, column, second = (editor.quote_name(name) for name in (shadow.table, shadow.column, shadow.name))
    editor.execute(f"ALTER TABLE {table} DROP COLUMN {column}", params=None)
    editor.execute(f"ALTER TABLE {table} RENAME COLUMN {second} TO {column}", params=None)
    _name_indexes(editor, shadow, had)
    ours = {definition: name for name, definition in checks_of(connection, shadow.table, shadow.column)}
    for name, definition in had.checks:
        if definition in ours:
            there, quoted = editor.quote_name(ours.pop(definition)), editor.quote_name(name)
            editor.execute(f"ALTER TABLE {table} RENAME CONSTRAINT {there} TO {quoted}", params=None)
    alter = f"ALTER TABLE {table} ALTER COLUMN {column}"
    if had.is_not_null:
        editor.execute(f"{alter} SET NOT NULL", params=None)
    for name in ours.values():
        # Also the one of which it was known that the column has no NULL.
        editor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {editor.quote_name(name)}", params=None)
    if had.default is not None:
        editor.execute(f"{alter} SET DEFAULT {had.default}", params=None)
    if had.comment is not None:
        editor.execute(f"COMMENT ON COLUMN {table}.{column} IS {editor.quote_value(had.comment)}", params=None)
    for grant in had.grants:
        editor.execute(f"GRANT {grant}", params=None)


def _name_indexes(editor: BaseDatabaseSchemaEditor, shadow: Shadow, had: _Facts) -> None:
    """Give its indexes the names of those that the first column had, and drop what is too much."""
    table = editor.quote_name(shadow.table)
    left = indexes_of(editor.connection, shadow.table, shadow.column)
    for name, is_unique, definition in had.indexes:
        found = next((index for index in left if index[1:] == (is_unique, definition)), None)
        if found is None:
            continue
        left.remove(found)
        there, quoted = editor.quote_name(found[0]), editor.quote_name(name)
        if name in had.uniques:
            editor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {quoted} UNIQUE USING INDEX {there}", params=None)
        else:
            editor.execute(f"ALTER INDEX {found_by(table, there)} RENAME TO {quoted}", params=None)
    for name, _is_unique, _definition in left:
        editor.execute(f"DROP INDEX {found_by(table, editor.quote_name(name))}", params=None)
