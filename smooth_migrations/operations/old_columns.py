"""The name that a column had before, kept as a second column beside it, for the release that knows it.

The column itself is renamed, and keeps what it is: its values, its place, indexes and constraints. The second one has
its type, privileges and values, and its indexes for whoever looks for rows by the old name; a trigger keeps the two
equal. What a constraint refuses, it refuses by the column itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import RenameField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.locks.modes import Locks, Mode
from smooth_migrations.operations.base import CannotSplit, Obstacle
from smooth_migrations.operations.shadow import (
    MOST_ROWS,
    Shadow,
    found_by,
    has_many_rows,
    index_statement,
    indexes_of,
    name_of,
    rows_of,
    type_of,
)

__all__ = ["DropOldColumn", "OldColumn", "RenameBeside", "crowded", "differing", "hindrances"]

_SAMPLE = 5
_HINDRANCES = r"""
    SELECT relkind <> 'r' OR EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhparent, inhrelid)),
           relforcerowsecurity, EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid),
           (SELECT string_agg(tgname, ', ' ORDER BY tgname) FROM pg_trigger
            WHERE tgrelid = c.oid AND NOT tgisinternal AND tgname NOT LIKE 'smooth\_%%'),
           EXISTS (SELECT FROM pg_attribute WHERE attrelid = c.oid AND attname = %s AND atthasdef AND NOT attnotnull),
           (SELECT typname FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
            WHERE attrelid = c.oid AND attname = %s AND typtype = 'd'
                AND (typdefault IS NOT NULL OR typnotnull
                     OR typbasetype IN (SELECT oid FROM pg_type WHERE typtype = 'd')))
    FROM pg_class c WHERE oid = to_regclass(%s)
"""
_GRANTS = """
    SELECT format('%%s (%%I) ON TABLE %%s TO %%s%%s', privilege_type, %s::text, attrelid::regclass,
                  CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END,
                  CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)
    FROM pg_attribute, aclexplode(attacl) WHERE attname = %s AND attrelid = %s::regclass
"""
_DEFAULT = """
    SELECT coalesce(pg_get_expr(adbin, adrelid), 'NULL')
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attname = %s AND attrelid = %s::oid
"""
# An INSERT names one of the two: the other one is NULL where it is the old one, or else its default. An UPDATE changes
# one of the two, and may say DEFAULT. Not every type can tell whether values are equal, and for some of them equal
# values are not the same. They are compared by function: of an operator the server forgets the type that it needs, and
# no dump of the trigger could be restored.
_FUNCTION = """
    CREATE FUNCTION {helper}() RETURNS trigger LANGUAGE plpgsql AS $smooth$
    DECLARE
        is_by_old boolean;
    BEGIN
        IF TG_OP = 'INSERT' THEN
            is_by_old := NEW.{old} IS DISTINCT FROM NULL;
        ELSE
            is_by_old := pg_catalog.record_image_eq(ROW(NEW.{new}), ROW(OLD.{new}));
        END IF;
        IF is_by_old THEN
            NEW.{new} := coalesce(NEW.{old}, {default});
        END IF;
        NEW.{old} := NEW.{new};
        RETURN NEW;
    END
    $smooth$
"""
_TRIGGER = """
    CREATE TRIGGER {helper} BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW
    WHEN (pg_catalog.record_image_ne(ROW(NEW.{old}), ROW(NEW.{new}))) EXECUTE FUNCTION {helper}()
"""


@dataclass(frozen=True, slots=True)
class OldColumn:
    """A column that is called otherwise now.

    Args:
        table: whose.
        old: its name before.
        new: its name now.
    """

    table: str
    old: str
    new: str

    @property
    def helper(self) -> str:
        """What the trigger and its function are called."""
        return name_of(self.table, self.old)

    @property
    def shadow(self) -> Shadow:
        """The second column, where it is made before the first one is renamed."""
        return Shadow(self.table, self.old)


class RenameBeside(RenameField):
    """Rename a field's column, and keep its old name as a column beside; going back drops that, and renames it back."""

    def __init__(self, operation: RenameField, column: OldColumn) -> None:
        super().__init__(operation.model_name, operation.old_name, operation.new_name)
        self._column = column

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Do all of it at once.

        Takes ACCESS EXCLUSIVE on the table: for a change of the catalogue where the second column is ready, or else
        while each row is written anew.

        Raises:
            CannotSplit: what has run since the plan was looked at has put something in the way.
        """
        with transaction.atomic(schema_editor.connection.alias):
            # No column is added beside checks of rows that are still to be done.
            schema_editor.connection.check_constraints()
            connection, column = schema_editor.connection, self._column
            for reason in (*hindrances(connection, column), *crowded(connection, column)):
                raise CannotSplit(f"{super().describe()}: {reason}")
            # Their definitions are those of the second column, as long as the first has its name.
            indexes = indexes_of(connection, column.table, column.old)
            is_ready = column.shadow.is_ready(connection)
            if is_ready:
                column.shadow.let_go(schema_editor)
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            (_take if is_ready else _make)(schema_editor, column)
            _grant(schema_editor, column)
            _index(schema_editor, column, indexes)
            _keep_equal(schema_editor, self._column)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Do all of it at once. Takes ACCESS EXCLUSIVE on the table, for a change of the catalogue."""
        with transaction.atomic(schema_editor.connection.alias):
            _drop(schema_editor, self._column)
            super().database_backwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        """Return what is done, in words."""
        return f"{super().describe()}, and keep the column {self._column.old} beside it"


class DropOldColumn(Operation):
    """Take the old name away."""

    reversible = False

    def __init__(self, column: OldColumn) -> None:
        self._column = column

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing: no model has it."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the column and what keeps it. Takes ACCESS EXCLUSIVE on the table, for a change of the catalogue."""
        del app_label, from_state, to_state
        _drop(schema_editor, self._column)

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes. Pure."""
        return {} if backwards else {self._column.table: Mode.ACCESS_EXCLUSIVE}

    def describe(self) -> str:
        """Return what is dropped, in words."""
        return f"Drop the column {self._column.table}.{self._column.old}"


def hindrances(connection: BaseDatabaseWrapper, column: OldColumn) -> Iterator[str]:
    """Yield why the old name of a column cannot be kept beside it in this database. Only reads.

    Args:
        connection: the database's.
        column: it, as long as it has its old name.
    """
    quoted, table = connection.ops.quote_name(column.table), column.table
    found = rows_of(connection, _HINDRANCES, column.old, column.old, quoted)
    for is_part, is_forced, has_rules, triggers, has_default, domain in found:
        if is_part:
            yield f"{table} is partitioned, or a part of another table"
        if is_forced:
            yield f"policies of {table} may hide rows from whoever fills it"
        if has_rules:
            yield f"{table} has rules, which rewrite what is written to it"
        if triggers is not None:
            yield f"{table} has triggers of its own, which would not see what is written by the other name: {triggers}"
        if has_default:
            yield f"{table}.{column.old} has a default, from which NULL could not be told"
        if domain is not None:
            yield f"{table}.{column.old} is of the domain {domain}, which has a default, or takes no NULL"


def crowded(connection: BaseDatabaseWrapper, column: OldColumn) -> Iterator[str]:
    """Yield that there are too many rows to be filled at once, where the second column is not ready. Only reads."""
    quoted = connection.ops.quote_name(column.table)
    if has_many_rows(connection, quoted) and not column.shadow.is_ready(connection):
        yield f"{column.table} has more than {MOST_ROWS} rows, which would be filled while nobody else can use it"


def differing(connection: BaseDatabaseWrapper, column: OldColumn, key: Sequence[str]) -> Iterator[Obstacle]:
    """Yield the rows in which the two columns differ, where something kept the trigger from being called. Only reads.

    Args:
        connection: the database's.
        column: the two.
        key: the columns of the table's primary key.
    """
    quote = connection.ops.quote_name
    old, new, table = (quote(name) for name in (column.old, column.new, column.table))
    rows = f"FROM {table} WHERE pg_catalog.record_image_ne(ROW({old}), ROW({new}))"
    [(count,)] = rows_of(connection, f"SELECT count(*) {rows}")
    if count:
        query = f"SELECT {', '.join(quote(name) for name in key)} {rows} ORDER BY 1"
        sample = tuple("/".join(str(part) for part in row) for row in rows_of(connection, f"{query} LIMIT {_SAMPLE}"))
        yield Obstacle(f"{column.table}.{column.old} is not {column.new}", column.table, count, sample, query)


def _make(editor: BaseDatabaseSchemaEditor, column: OldColumn) -> None:
    old, new, table = (editor.quote_name(name) for name in (column.old, column.new, column.table))
    kind = type_of(editor.connection, column.table, column.new)
    editor.execute(f"ALTER TABLE {table} ADD COLUMN {old} {kind}", params=None)
    editor.execute(f"UPDATE {table} SET {old} = {new} WHERE {new} IS NOT NULL", params=None)  # noqa: S608 - quoted
    # It alters no table, and indexes none, with checks that are still to be done.
    editor.connection.check_constraints()
    editor.execute(f"ANALYZE {table} ({old})", params=None)


def _take(editor: BaseDatabaseSchemaEditor, column: OldColumn) -> None:
    table, old, ready = (editor.quote_name(name) for name in (column.table, column.old, column.shadow.name))
    editor.execute(f"ALTER TABLE {table} RENAME COLUMN {ready} TO {old}", params=None)


def _grant(editor: BaseDatabaseSchemaEditor, column: OldColumn) -> None:
    table = editor.quote_name(column.table)
    for (grant,) in rows_of(editor.connection, _GRANTS, column.old, column.new, table):
        editor.execute(f"GRANT {grant}", params=None)


def _index(editor: BaseDatabaseSchemaEditor, column: OldColumn, wanted: Sequence[tuple[str, bool, str]]) -> None:
    """Give the second column these indexes, and no others: some may be there."""
    kinds = [(is_unique, definition) for _index, is_unique, definition in wanted]
    there = []
    for index, is_unique, definition in indexes_of(editor.connection, column.table, column.old):
        if (is_unique, definition) in kinds:
            there.append((is_unique, definition))
        else:
            there_by = found_by(editor.quote_name(column.table), editor.quote_name(index))
            editor.execute(f"DROP INDEX {there_by}", params=None)
    for index, is_unique, definition in wanted:
        if (is_unique, definition) not in there:
            name = name_of(column.table, column.old, index)
            build = index_statement(editor.connection, name, column.table, definition, is_unique=is_unique)
            editor.execute(build, params=None)


def _keep_equal(editor: BaseDatabaseSchemaEditor, column: OldColumn) -> None:
    names = {name: editor.quote_name(getattr(column, name)) for name in ("table", "old", "new", "helper")}
    default = _default(editor, column.new, names["table"])
    for statement in (_FUNCTION, _TRIGGER):
        editor.execute(statement.format(**names, default=default), params=None)


def _default(editor: BaseDatabaseSchemaEditor, name: str, table: str) -> str:
    """Return a column's default with every name qualified, since each writer has a search path of its own."""
    connection = editor.connection
    [(oid, path)] = rows_of(connection, "SELECT %s::regclass::oid::text, current_setting('search_path')", table)
    rows_of(connection, "SELECT set_config('search_path', '', true)")
    [(default,)] = rows_of(connection, _DEFAULT, name, oid)
    rows_of(connection, "SELECT set_config('search_path', %s, true)", path)
    return str(default)


def _drop(editor: BaseDatabaseSchemaEditor, column: OldColumn) -> None:
    table, old, helper = (editor.quote_name(name) for name in (column.table, column.old, column.helper))
    editor.execute(f"DROP TRIGGER IF EXISTS {helper} ON {table}", params=None)
    editor.execute(f"DROP FUNCTION IF EXISTS {helper}()", params=None)
    # Its indexes go with it.
    editor.execute(f"ALTER TABLE {table} DROP COLUMN {old}", params=None)
