"""What of a plan can be made ready before its transaction, on tables that are there: indexes, and columns."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from django.apps import apps
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import AddField, AddIndex, AlterField, RenameField
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.added_columns import column_grounds
from smooth_migrations.changes import Changes
from smooth_migrations.groundwork import Ground, Groundwork, collected, grounds_of
from smooth_migrations.halves import originals
from smooth_migrations.locks.tables import AnyField, models_of
from smooth_migrations.operations import CannotSplit, Place
from smooth_migrations.operations.base import ModelKey
from smooth_migrations.operations.rename_field import SplitRenameField
from smooth_migrations.shadow_columns import ShadowGround
from smooth_migrations.touched import is_here, refers_to

__all__ = ["plan_groundwork"]

_INDEXING: Final = (AddIndex, AlterField)


def plan_groundwork(
    connection: BaseDatabaseWrapper, plan: Sequence[Migration], executor: MigrationExecutor
) -> Groundwork:
    """Return what can be made ready for a plan. Only reads; nothing but on PostgreSQL.

    Args:
        connection: the database's.
        plan: migrations that go forwards, in order.
        executor: of the database.
    """
    parts = [(migration, part) for migration in plan for part in originals(migration)]
    kinds = (*_INDEXING, AddField, RenameField)
    if connection.vendor != "postgresql" or not any(isinstance(part, kinds) for _migration, part in parts):
        return Groundwork()
    # The one way to this state that Django's own migrate takes.
    state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    indexes: dict[str, Ground] = {}
    shadows: list[ShadowGround] = []
    migrations: set[Migration] = set()
    changes = Changes()
    for migration, part in parts:
        label = migration.app_label
        is_changed = changes.touch(label, part)
        changes.note(label, part)
        if not is_changed and (found := _indexes(connection, label, part, state)):
            indexes |= found
            migrations.add(migration)
        if not is_changed and (shadow := _shadow(connection, label, part, state)) is not None:
            shadows.append(shadow)
            migrations.add(migration)
    return Groundwork(indexes, tuple(shadows), migrations)


def _indexes(
    connection: BaseDatabaseWrapper, label: str, operation: Operation, state: ProjectState
) -> dict[str, Ground]:
    keys = {(label, name) for name in models_of(operation)}
    # Of these themselves it is known that all that they do goes through the schema editor.
    if type(operation) not in (*_INDEXING, AddField) or not keys <= state.models.keys():
        return {}
    # What it refers to may be yet to come.
    if not refers_to(operation, label) <= state.models.keys() | _of_apps_without_migrations(state):
        return {}
    if isinstance(operation, AddField):
        return column_grounds(connection, label, operation, state)
    after = state.clone()
    operation.state_forwards(label, after)
    statements = collected(connection, label, operation, state, after)
    found = grounds_of(statements)
    if not all(statement in found and statement.startswith("CREATE INDEX ") for statement in statements):
        return {}
    return {statement: replace(ground, is_optional=True) for statement, ground in found.items()}


def _of_apps_without_migrations(state: ProjectState) -> AbstractSet[ModelKey]:
    return {(app, name) for app in state.real_apps for name in apps.all_models[app]}


def _shadow(
    connection: BaseDatabaseWrapper, label: str, operation: Operation, state: ProjectState
) -> ShadowGround | None:
    if not isinstance(operation, RenameField) or (label, operation.model_name_lower) not in state.models:
        return None
    place = Place(label, state, connection)
    try:
        split = SplitRenameField.of(operation, place)
    except CannotSplit:
        return None
    if split is None or not is_here(operation, place):
        return None
    shadow = split.column.shadow
    field: AnyField = place.rendered(operation.model_name)._meta.get_field(operation.old_name)  # noqa: SLF001 - public
    return ShadowGround(shadow, connection.ops.quote_name(shadow.table), split.key, field.attname, state)
