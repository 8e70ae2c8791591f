"""The content type of a renamed model, and its permissions by the names that they had, for the release before.

Django renames a content type with its model. A process of the release before that looks for the old name makes another
one, and refers to it until it ends; then what refers to that one is of the model, and it goes.

From 6.1 on Django renames the permissions as well, at the end of `migrate` (release notes 6.1, django.contrib.auth).
Who asks for `app.view_old` then finds nothing, whatever users have been granted. So each is kept beside under its old
name, with its grants. A permission is found by its app and its codename alone, which is why a content type that belongs
to no model can hold these.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import product
from typing import Any

import django
from django.db import IntegrityError, router, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import RenameModel
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.locks.modes import Locks
from smooth_migrations.operations.base import Place
from smooth_migrations.undo.caches import forget_content_types

__all__ = ["DropOldType", "KeepOldType"]

_RENAMES_PERMISSIONS_SINCE = (6, 1)
_LONGEST = 100
_TYPES, _PERMISSIONS = "django_content_type", "auth_permission"
_TYPE = f"SELECT id FROM {_TYPES} WHERE app_label = %s AND model = %s"  # noqa: S608 - constant names
_OF_TYPE = f"SELECT id FROM {_PERMISSIONS} WHERE content_type_id IN ({_TYPE})"  # noqa: S608 - as above
_ONE = f"{_OF_TYPE} AND codename = %s"

_TYPE_MODEL, _PERMISSION_MODEL = ("contenttypes", "contenttype"), ("auth", "permission")

Key = tuple[str, str]
"""An app, and the name of a model in lower case."""


class KeepOldType(Operation):
    """Keep the permissions of a renamed model by their old names as well; going back takes these away.

    So does it with a content type that a process of the release before has made by the old name: what refers to it is
    of the one that stays then, and what has been granted by its permissions, or the kept ones, by those of that one.

    Args:
        rename: what renames the model.
    """

    reversible = True

    def __init__(self, rename: RenameModel) -> None:
        self._rename = rename
        self._old, self._new = rename.old_name_lower, rename.new_name_lower
        held = f"smooth_{self._old}"
        self._held = held if len(held) <= _LONGEST else f"smooth_{sha256(held.encode()).hexdigest()}"

    @classmethod
    def of(cls, rename: Operation, place: Place) -> "list[KeepOldType]":
        """Return what keeps it, where this database knows content types. Pure."""
        if not isinstance(rename, RenameModel) or rename.old_name_lower == rename.new_name_lower:
            return []
        is_there = _TYPE_MODEL in place.schema.models and _is_here(place.connection.alias, _TYPE_MODEL)
        return [cls(rename)] if is_there else []

    def dropped(self) -> "DropOldType":
        """Return what ends it. Pure."""
        return DropOldType(self._rename)

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """Change nothing: no model is about what is kept."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Copy the permissions and their grants. Writes rows of Django's own tables alone."""
        del from_state
        if django.VERSION < _RENAMES_PERMISSIONS_SINCE or not _has_permissions(schema_editor, to_state):
            return
        held, old = (app_label, self._held), (app_label, self._old)
        schema_editor.execute(
            f"INSERT INTO {_TYPES} (app_label, model) SELECT %s, %s WHERE NOT EXISTS ({_TYPE})",
            (*held, *held),
        )
        model = to_state.apps.get_model(app_label, self._new)
        for action in model._meta.default_permissions:  # noqa: SLF001 - public
            name = f"{action}_{self._old}"
            schema_editor.execute(
                f"INSERT INTO {_PERMISSIONS} (name, codename, content_type_id) "  # noqa: S608 - constant names
                f"SELECT name, codename, ({_TYPE}) FROM {_PERMISSIONS} WHERE id IN ({_ONE}) AND NOT EXISTS ({_ONE})",
                (*held, *old, name, *held, name),
            )
            for table in _grants(to_state):
                _grant(schema_editor, table, (*old, name), (*held, name))
        _check_now(schema_editor)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Let what was kept or made by the old name become that of the model, which gets that name back."""
        del to_state
        self._dissolve(app_label, schema_editor, from_state)
        # Django could not rename it where another one had its name.
        free = f"NOT EXISTS (SELECT 1 FROM {_TYPES} AS other WHERE app_label = %s AND model = %s)"  # noqa: S608
        schema_editor.execute(
            f"UPDATE {_TYPES} SET model = %s WHERE app_label = %s AND model = %s AND {free}",  # noqa: S608
            (self._old, app_label, self._new, app_label, self._old),
        )
        forget_content_types()

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes: none. Pure."""
        del backwards
        return {}

    def describe(self) -> str:
        """Return what is kept, in words."""
        return f"Keep the permissions of {self._old} by these names for the release before"

    def _dissolve(self, app_label: str, editor: BaseDatabaseSchemaEditor, state: ProjectState) -> None:
        held, old, new = ((app_label, model) for model in (self._held, self._old, self._new))
        # Going back Django has renamed it by now. A model that has the name itself keeps its own.
        has_name = old in state.models
        self._merge(editor, state, held, [new] if has_name else [old, new])
        if not has_name and _rows(editor, _TYPE, new):
            self._merge(editor, state, old, [new])

    def _merge(self, editor: BaseDatabaseSchemaEditor, state: ProjectState, gone: Key, kept: Sequence[Key]) -> None:
        """Let what refers to a content type refer to another one, and remove it; if that cannot be, all stays."""
        if not _rows(editor, _TYPE, gone):
            return
        with suppress(IntegrityError), transaction.atomic(editor.connection.alias):
            if _has_permissions(editor, state):
                self._merge_permissions(editor, state, gone, kept)
            for table, column in _references(state, _TYPE_MODEL):
                if table != _PERMISSIONS:
                    _refer(editor, (table, column), (_TYPE, gone), (_TYPE, kept[-1]))
            editor.execute(f"DELETE FROM {_TYPES} WHERE app_label = %s AND model = %s", gone)  # noqa: S608
            _check_now(editor)

    def _merge_permissions(
        self, editor: BaseDatabaseSchemaEditor, state: ProjectState, gone: Key, kept: Sequence[Key]
    ) -> None:
        grants = [*_grants(state)]
        through = {table for table, _owner, _permission in grants}
        references = [each for each in _references(state, _PERMISSION_MODEL) if each[0] not in through]
        codenames = f"SELECT codename FROM {_PERMISSIONS} WHERE id IN ({_OF_TYPE})"  # noqa: S608 - constant names
        for (codename,) in _rows(editor, codenames, gone):
            renamed = (
                f"{codename.removesuffix(self._old)}{self._new}" if codename.endswith(f"_{self._old}") else codename
            )
            for key, name in product(kept, {codename, renamed}):
                for each in grants:
                    _grant(editor, each, (*gone, codename), (*key, name))
                for reference in references:
                    _refer(editor, reference, (_ONE, (*gone, codename)), (_ONE, (*key, name)))
        for table, _owner, permission in grants:
            name, to_permission = editor.quote_name(table), editor.quote_name(permission)
            editor.execute(f"DELETE FROM {name} WHERE {to_permission} IN ({_OF_TYPE})", gone)  # noqa: S608
        editor.execute(f"DELETE FROM {_PERMISSIONS} WHERE content_type_id IN ({_TYPE})", gone)  # noqa: S608


class DropOldType(KeepOldType):
    """Let go of what was kept or made of a renamed model's content type by its old name."""

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Let that become the model's, and remove it."""
        del from_state
        self._dissolve(app_label, schema_editor, to_state)

    def describe(self) -> str:
        """Return what is let go of, in words."""
        return f"Let go of the content type and the permissions of {self._old} by these names"


def _is_here(alias: str, model: Key) -> bool:
    return bool(router.allow_migrate(alias, model[0], model_name=model[1]))


def _has_permissions(editor: BaseDatabaseSchemaEditor, state: ProjectState) -> bool:
    return _PERMISSION_MODEL in state.models and _is_here(editor.connection.alias, _PERMISSION_MODEL)


def _grants(state: ProjectState) -> Iterator[tuple[str, str, str]]:
    """Yield the tables that say who has a permission, with their columns for whom, and for which one."""
    relations: Any = state.apps.get_model(*_PERMISSION_MODEL)._meta.related_objects  # noqa: SLF001 - public
    for relation in relations:
        field = relation.field
        if relation.many_to_many and relation.through._meta.auto_created and not relation.related_model._meta.swapped:  # noqa: SLF001 - public
            yield field.m2m_db_table(), field.m2m_column_name(), field.m2m_reverse_name()


def _references(state: ProjectState, model: Key) -> Iterator[tuple[str, str]]:
    """Yield the tables whose rows refer to a model's, with the column that does."""
    relations: Any = state.apps.get_model(*model)._meta.get_fields(include_hidden=True)  # noqa: SLF001 - public
    for relation in relations:
        if relation.auto_created and not relation.concrete and (relation.one_to_many or relation.one_to_one):
            options = relation.related_model._meta  # noqa: SLF001 - public
            if options.managed and not options.swapped:
                yield options.db_table, relation.field.column


def _grant(
    editor: BaseDatabaseSchemaEditor, table: tuple[str, str, str], given: tuple[str, ...], to_give: tuple[str, ...]
) -> None:
    """Give a permission to whoever has another one, and not this one yet. Each is an app, a model and a codename."""
    name, owner, permission = (editor.quote_name(each) for each in table)
    has = f"SELECT 1 FROM {name} AS has WHERE has.{owner} = given.{owner} AND has.{permission} = wanted.id"  # noqa: S608
    editor.execute(
        f"INSERT INTO {name} ({owner}, {permission}) SELECT given.{owner}, wanted.id "  # noqa: S608 - quoted names
        f"FROM {name} AS given, ({_ONE}) AS wanted WHERE given.{permission} IN ({_ONE}) AND NOT EXISTS ({has})",
        (*to_give, *given),
    )


def _refer(
    editor: BaseDatabaseSchemaEditor,
    reference: tuple[str, str],
    gone: tuple[str, tuple[str, ...]],
    kept: tuple[str, tuple[str, ...]],
) -> None:
    """Let a column refer to what one query finds, where it refers to what another one does, if there is any."""
    table, column = (editor.quote_name(each) for each in reference)
    editor.execute(
        f"UPDATE {table} SET {column} = ({kept[0]}) WHERE {column} IN ({gone[0]}) AND EXISTS ({kept[0]})",  # noqa: S608
        (*kept[1], *gone[1], *kept[1]),
    )


def _rows(editor: BaseDatabaseSchemaEditor, query: str, parameters: Sequence[str]) -> list[tuple[Any, ...]]:
    with editor.connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return [*cursor.fetchall()]


def _check_now(editor: BaseDatabaseSchemaEditor) -> None:
    """Leave no check for the end of the transaction: the server alters no table of which one is to be done."""
    if editor.connection.vendor == "postgresql":
        editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        editor.execute("SET CONSTRAINTS ALL DEFERRED")
