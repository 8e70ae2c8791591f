"""The permissions of a renamed model by the names that they had, for the release that asks for those.

From 6.1 on Django renames a model's permissions together with it, at the end of `migrate` (release notes 6.1,
django.contrib.auth). Who asks for `app.view_old` then finds nothing, whatever users have been granted. So each is kept
beside under its old name, with its grants. A permission is found by its app and its codename alone, which is why a
content type that belongs to no model can hold these.
"""

from collections.abc import Iterator
from typing import Any

import django
from django.db import router
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.locks.modes import Locks
from smooth_migrations.operations.base import Place

__all__ = ["DropOldPermissions", "KeepOldPermissions"]

_RENAMES_SINCE = (6, 1)
_LONGEST = 100
_TYPES, _PERMISSIONS = "django_content_type", "auth_permission"
_OF = f"SELECT id FROM {_TYPES} WHERE app_label = %s AND model = %s"  # noqa: S608 - constant names
# One permission by its app, its model and its codename.
_ONE = f"SELECT id FROM {_PERMISSIONS} WHERE content_type_id IN ({_OF}) AND codename = %s"  # noqa: S608 - as above


class KeepOldPermissions(Operation):
    """Keep the permissions of a renamed model by their old names as well; going back takes these away.

    What has been granted by a kept name meanwhile is granted by the one that stays.

    Args:
        rename: what renames the model.
    """

    reversible = True

    def __init__(self, rename: RenameModel) -> None:
        self._rename = rename
        self._old, self._new = rename.old_name_lower, rename.new_name_lower
        self._held = f"smooth_{self._old}"[:_LONGEST]

    @classmethod
    def of(cls, rename: Operation, place: Place) -> "list[KeepOldPermissions]":
        """Return what keeps them, where Django renames permissions with a model in this database. Pure."""
        if not isinstance(rename, RenameModel) or rename.old_name_lower == rename.new_name_lower:
            return []
        renames = (
            django.VERSION >= _RENAMES_SINCE
            and ("auth", "permission") in place.schema.models
            and router.allow_migrate(place.connection.alias, "auth", model_name="permission")
        )
        return [cls(rename)] if renames else []

    def dropped(self) -> "DropOldPermissions":
        """Return what ends it. Pure."""
        return DropOldPermissions(self._rename)

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing: no model is about what is kept."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Copy the permissions and their grants. Only writes rows of Django's own tables."""
        del from_state
        held = (app_label, self._held)
        schema_editor.execute(f"INSERT INTO {_TYPES} (app_label, model) VALUES (%s, %s)", held)  # noqa: S608 - a constant name
        for action in self._actions(app_label, to_state):
            name = f"{action}_{self._old}"
            schema_editor.execute(
                f"INSERT INTO {_PERMISSIONS} (name, codename, content_type_id) "  # noqa: S608 - constant names
                f"SELECT name, codename, ({_OF}) FROM {_PERMISSIONS} WHERE id IN ({_ONE})",
                (*held, app_label, self._old, name),
            )
            for table in _grants(to_state):
                _grant(schema_editor, table, (app_label, self._old, name), (*held, name))
        _check_now(schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Grant by the names that stay what has been granted by those that go, and remove these."""
        del to_state
        held = (app_label, self._held)
        tables = [*_grants(from_state)]
        for action in self._actions(app_label, from_state):
            kept = (*held, f"{action}_{self._old}")
            for table in tables:
                # Whether Django has renamed them back by now depends on who takes the model back.
                for model in (self._old, self._new):
                    for name in (self._old, self._new):
                        _grant(schema_editor, table, kept, (app_label, model, f"{action}_{name}"))
        ours = f"SELECT id FROM {_PERMISSIONS} WHERE content_type_id IN ({_OF})"  # noqa: S608 - constant names
        for name, _owner, permission in tables:
            schema_editor.execute(f"DELETE FROM {name} WHERE {permission} IN ({ours})", held)  # noqa: S608 - quoted
        schema_editor.execute(f"DELETE FROM {_PERMISSIONS} WHERE content_type_id IN ({_OF})", held)  # noqa: S608
        schema_editor.execute(f"DELETE FROM {_TYPES} WHERE app_label = %s AND model = %s", held)  # noqa: S608
        _check_now(schema_editor)

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes: none. Pure."""
        del backwards
        return {}

    def describe(self) -> str:
        """Return what is kept, in words."""
        return f"Keep the permissions of {self._old} by these names for the release before"

    def _actions(self, app_label: str, state: ProjectState) -> tuple[str, ...]:
        model = state.apps.get_model(app_label, self._new)
        return tuple(model._meta.default_permissions)  # noqa: SLF001 - public


class DropOldPermissions(KeepOldPermissions):
    """Let go of the permissions of a renamed model by their old names."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Grant by the names that stay what has been granted by those that go, and remove these."""
        super().database_backwards(app_label, schema_editor, from_state, to_state)

    def describe(self) -> str:
        """Return what is let go of, in words."""
        return f"Let go of the permissions of {self._old} by these names"


def _grants(state: ProjectState) -> Iterator[tuple[str, str, str]]:
    """Yield the tables that say who has a permission, with their columns for who that is, and for which it is."""
    relations: Any = state.apps.get_model("auth", "Permission")._meta.related_objects  # noqa: SLF001 - public
    for relation in relations:
        field = relation.field
        if relation.many_to_many and relation.through._meta.auto_created and not relation.related_model._meta.swapped:  # noqa: SLF001 - public
            yield field.m2m_db_table(), field.m2m_column_name(), field.m2m_reverse_name()


def _grant(
    editor: BaseDatabaseSchemaEditor, table: tuple[str, str, str], given: tuple[str, str, str], to_give: tuple[str, ...]
) -> None:
    """Give a permission to whoever has another one, and not this one yet. Each is an app, a model and a codename."""
    name, owner, permission = (editor.quote_name(each) for each in table)
    has = f"SELECT 1 FROM {name} AS has WHERE has.{owner} = given.{owner} AND has.{permission} = wanted.id"  # noqa: S608
    editor.execute(
        f"INSERT INTO {name} ({owner}, {permission}) SELECT given.{owner}, wanted.id "  # noqa: S608 - quoted names
        f"FROM {name} AS given, ({_ONE}) AS wanted WHERE given.{permission} IN ({_ONE}) AND NOT EXISTS ({has})",
        (*to_give, *given),
    )


def _check_now(editor: BaseDatabaseSchemaEditor) -> None:
    """Leave no check for the end of the transaction: the server alters no table of which one is to be done."""
    if editor.connection.vendor == "postgresql":
        editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        editor.execute("SET CONSTRAINTS ALL DEFERRED")
