"""The names that a table and its columns had before, kept as a view that takes writes, for the release that knows them.

A view of columns of one table alone is updatable: what is written to it is written to the table, whose own defaults and
sequences give what is left out, and RETURNING and ON CONFLICT work (PostgreSQL manual, CREATE VIEW, updatable views).
COPY and TRUNCATE do not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.locks.modes import Locks, Mode

if TYPE_CHECKING:
    from django.db.models import Model

__all__ = ["DropOldNames", "KeepOldNames", "Renamed", "hindrances"]

_AS_INVOKER = 150000
# Whose a table is, and in which schema, which need not be the first that a session looks in.
_PLACE = "SELECT relnamespace::regnamespace::text, relowner::regrole::text FROM pg_class WHERE oid = %s::regclass"
# Whether policies say who sees which row, and who is to own a view but may not.
_HINDRANCES = """
    SELECT relrowsecurity, CASE WHEN NOT (rolsuper OR has_schema_privilege(relowner, relnamespace, 'CREATE'))
        AND rolname <> pg_get_userbyid(relowner) THEN pg_get_userbyid(relowner)::text END
    FROM pg_class, pg_roles WHERE pg_class.oid = to_regclass(%s) AND rolname = current_user
"""
# What whoever makes a view gives to others by default (PostgreSQL manual, ALTER DEFAULT PRIVILEGES).
_BY_DEFAULT = """
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
    FROM pg_class, aclexplode(relacl) WHERE oid = %s::regclass AND grantee <> relowner
"""
# Those that a view can have as well, of the table and of single columns.
_GRANTS = """
    SELECT NULL::text, privilege_type, is_grantable, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
    FROM pg_class, aclexplode(relacl) WHERE oid = %s::regclass AND grantee <> relowner
        AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    UNION ALL
    SELECT attname, privilege_type, is_grantable, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
    FROM pg_attribute, aclexplode(attacl) WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
        AND privilege_type IN ('SELECT', 'INSERT', 'UPDATE')
"""


@dataclass(frozen=True, slots=True)
class Renamed:
    """A table that is called otherwise now.

    Args:
        old: its name before.
        new: its name now.
        columns: of each of its columns the name before and the name now.
    """

    old: str
    new: str
    columns: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, before: "type[Model]", after: "type[Model]") -> "Renamed":
        """Return what was renamed of a model's table."""
        old, new = before._meta, after._meta  # noqa: SLF001 - public
        fields = zip(old.local_concrete_fields, new.local_concrete_fields, strict=True)
        columns = tuple((str(one.column), str(other.column)) for one, other in fields)
        return cls(old.db_table, new.db_table, columns)

    @property
    def has_view(self) -> bool:
        """Whether the release before finds it by a view."""
        return self.old != self.new

    def since(self, earlier: "Renamed | None") -> "Renamed":
        """Return the same, with columns that have been renamed already called what they were called before that."""
        before = {new: old for old, new in earlier.columns} if earlier is not None else {}
        return replace(self, columns=tuple((before.get(old, old), new) for old, new in self.columns))


def hindrances(connection: BaseDatabaseWrapper, table: Renamed) -> Iterator[str]:
    """Yield in words why no view can stand for a table that is yet to be renamed. Only reads."""
    with connection.cursor() as cursor:
        cursor.execute(_HINDRANCES, [connection.ops.quote_name(table.old)])
        rows = cursor.fetchall()
    for has_policies, stranger in rows:
        if has_policies and not _asks_as_invoker(connection):
            yield f"{table.old} has row security, which views go round on this server, before PostgreSQL 15"
        if stranger is not None:
            yield f"{table.old} belongs to {stranger}, who may not create a view in its schema"


class KeepOldNames(Operation):
    """Give tables that were renamed their old names beside the new ones; going back takes these away."""

    reversible = True

    def __init__(self, tables: Sequence[Renamed]) -> None:
        self._tables = tables

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing: no model has a view for its table."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Make the views, owned by whom the tables are, with their privileges. Locks tables for reading alone."""
        del app_label, from_state, to_state
        for table in self._tables:
            _make_view(schema_editor, table)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the views."""
        del app_label, from_state, to_state
        for table in self._tables:
            view, _owner = _view_of(schema_editor, table)
            schema_editor.execute(f"DROP VIEW {view}")

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes. Pure."""
        return {table.old: Mode.ACCESS_EXCLUSIVE for table in self._tables} if backwards else {}

    def describe(self) -> str:
        """Return what is made, in words."""
        return f"Keep {', '.join(table.old for table in self._tables)} as a view for the release before"


class DropOldNames(KeepOldNames):
    """Take the old names away."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the views. Takes ACCESS EXCLUSIVE on each."""
        super().database_backwards(app_label, schema_editor, from_state, to_state)

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes. Pure."""
        # LOCK TABLE on a view locks its table too, which this leaves alone, and whoever knew the view is gone.
        del backwards
        return {}

    def describe(self) -> str:
        """Return what is dropped, in words."""
        return f"Drop the view {', '.join(table.old for table in self._tables)}"


def _make_view(editor: BaseDatabaseSchemaEditor, table: Renamed) -> None:
    quote = editor.quote_name
    view, owner = _view_of(editor, table)
    made_of = quote(table.new)
    columns = ", ".join(f"{quote(new)} AS {quote(old)}" for old, new in table.columns)
    options = " WITH (security_invoker = true)" if _asks_as_invoker(editor.connection) else ""
    query = f"SELECT {columns} FROM {made_of}"  # noqa: S608 - quoted names
    editor.execute(f"CREATE VIEW {view}{options} AS {query}")
    editor.execute(f"ALTER VIEW {view} OWNER TO {owner}")
    for (grantee,) in _read(editor, _BY_DEFAULT, view):
        editor.execute(f"REVOKE ALL ON {view} FROM {grantee}")
    old_names = {new: quote(old) for old, new in table.columns}
    for column, privilege, is_grantable, grantee in _read(editor, _GRANTS, made_of, made_of):
        on = f"{privilege} ({old_names[column]})" if column is not None else privilege
        option = " WITH GRANT OPTION" if is_grantable else ""
        editor.execute(f"GRANT {on} ON {view} TO {grantee}{option}")


def _asks_as_invoker(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a view may read its table with the rights of whoever asks it."""
    return bool(connection.pg_version >= _AS_INVOKER)  # type: ignore[attr-defined]  # PostgreSQL's


def _view_of(editor: BaseDatabaseSchemaEditor, table: Renamed) -> tuple[str, str]:
    """Return a table's old name in the schema where the table is, and the table's owner."""
    [(schema, owner)] = _read(editor, _PLACE, editor.quote_name(table.new))
    return f"{schema}.{editor.quote_name(table.old)}", owner


def _read(editor: BaseDatabaseSchemaEditor, query: str, *names: str) -> list[tuple[Any, ...]]:
    with editor.connection.cursor() as cursor:
        cursor.execute(query, names)
        return [*cursor.fetchall()]
