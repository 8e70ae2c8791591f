"""The names that columns of a table had before, beside the new ones, for the release that knows them.

The table is put behind a view of its name that has the renamed columns twice. Such a view is updatable (PostgreSQL
manual, CREATE VIEW, updatable views: each column that is a plain reference to one of the table is): whichever name a
statement writes to, it writes to the one column that there is, so that nothing has to be copied or kept equal.
"""

from collections.abc import Sequence

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import truncate_name
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.operations.old_names import Renamed, make_view

__all__ = ["DropOldColumns", "KeepOldColumns"]

_COLUMNS = """
    SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
_IS_VIEW = "SELECT relkind = 'v' FROM pg_class WHERE oid = to_regclass(%s)"


class DropOldColumns(Operation):
    """Take the view away that has a table's name, and give it back to the table; going back puts it there again.

    Args:
        table: its name.
        renamed: of the columns that the view has twice, the name before and the name now.
    """

    reversible = True

    def __init__(self, table: str, renamed: Sequence[tuple[str, str]]) -> None:
        self._table, self._renamed = table, renamed

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing: to models both names of the table are one."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the view, where there is one. Takes ACCESS EXCLUSIVE on it and on the table."""
        del app_label, from_state, to_state
        self._take_away(schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Put the view there, where there is none."""
        del app_label, from_state, to_state
        self._put_there(schema_editor)

    def describe(self) -> str:
        """Return what is done, in words."""
        return f"Drop {self._old_names()} of {self._table}"

    def _old_names(self) -> str:
        return ", ".join(old for old, _new in self._renamed)

    def _behind(self, editor: BaseDatabaseSchemaEditor) -> str:
        return truncate_name(f"{self._table}__columns", editor.connection.ops.max_name_length())

    def _is_behind(self, editor: BaseDatabaseSchemaEditor) -> bool:
        with editor.connection.cursor() as cursor:
            cursor.execute(_IS_VIEW, [editor.quote_name(self._table)])
            (is_view,) = cursor.fetchone() or (False,)
        return bool(is_view)

    def _take_away(self, editor: BaseDatabaseSchemaEditor) -> None:
        if not self._is_behind(editor):
            return
        table, behind = editor.quote_name(self._table), editor.quote_name(self._behind(editor))
        editor.execute(f"DROP VIEW {table}")
        editor.execute(f"ALTER TABLE {behind} RENAME TO {table}")

    def _put_there(self, editor: BaseDatabaseSchemaEditor) -> None:
        if self._is_behind(editor):
            return
        table, behind = editor.quote_name(self._table), editor.quote_name(self._behind(editor))
        editor.execute(f"ALTER TABLE {table} RENAME TO {behind}")
        with editor.connection.cursor() as cursor:
            cursor.execute(_COLUMNS, [behind])
            columns = [(name, name) for (name,) in cursor.fetchall()]
        make_view(editor, Renamed(self._table, self._behind(editor), (*columns, *self._renamed)))


class KeepOldColumns(DropOldColumns):
    """Give columns that were renamed their old names beside the new ones; going back takes these away."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Put the table behind a view of its name. Takes ACCESS EXCLUSIVE on it, for a change of the catalogue."""
        super().database_backwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Take the view away again."""
        super().database_forwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        """Return what is done, in words."""
        return f"Keep {self._old_names()} in {self._table} for the release before"
