"""The project's states before and between what a call has moved."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations import Migration, RunPython, RunSQL
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.protocol.values import Step
from smooth_migrations.reversibility import database_parts
from smooth_migrations.undo.named import made_by_sql, tables_of
from smooth_migrations.undo.records import Key, Record, keys_of
from smooth_migrations.undo.synced import tables_of_apps

__all__ = [
    "executor_as_before",
    "rendered_afresh",
    "state_before",
    "states_before",
    "states_of",
    "tables_of_all",
]


def executor_as_before(
    connection: BaseDatabaseWrapper, moved: Sequence[tuple[Migration, Step]], records: Iterable[Record]
) -> MigrationExecutor:
    """Return an executor with the graph that the call had, which began before these steps.

    A squash of which the half was applied is not there, and is when the other half is applied too.

    Args:
        connection: the target's.
        moved: what the call has recorded, in order.
        records: what was recorded before. A migration that deletes or renames records has not taken back what they say.
    """
    executor = MigrationExecutor(connection)
    unapplied = {key for migration, step in moved if step.backwards for key in keys_of(migration)}
    executor.loader.applied_migrations |= _forgotten(executor.loader, records, unapplied)
    if not executor.loader.replacements:
        return executor
    loader = executor.loader = MigrationLoader(connection, replace_migrations=False)
    loader.applied_migrations |= _forgotten(loader, records, unapplied)
    before = {*loader.applied_migrations}
    for migration, step in moved:
        before = before | keys_of(migration) if step.backwards else before - keys_of(migration)
    for key, squash in loader.replacements.items():
        replaced = set(squash.replaces)
        if replaced <= {*loader.applied_migrations}:
            loader.applied_migrations[key] = squash
        else:
            loader.applied_migrations.pop(key, None)
        if replaced <= before or not replaced & before:
            loader.graph.remove_replaced_nodes(key, squash.replaces)
        else:
            loader.graph.remove_replacement_node(key, squash.replaces)
    return executor


def _forgotten(loader: MigrationLoader, records: Iterable[Record], unapplied: Collection[Key]) -> dict[Key, Migration]:
    keys = {record.key for record in records} - {*loader.applied_migrations} - {*unapplied}
    return {key: loader.disk_migrations[key] for key in keys if key in loader.disk_migrations}


def state_before(executor: MigrationExecutor, migration: Migration) -> ProjectState:
    """Return the project's state before a migration."""
    executor.loader.graph.nodes[migration.app_label, migration.name] = migration
    return states_before(executor, {migration})[migration]


def tables_of_all(connection: BaseDatabaseWrapper) -> frozenset[str]:
    """Return every name that any migration of the project gives to a table, also to those that a later one drops.

    What Python code makes by itself is not known.
    """
    executor = MigrationExecutor(connection)
    tables: set[str] = {*tables_of_apps(connection, executor.loader.unmigrated_apps)}
    state = ProjectState(real_apps=executor.loader.unmigrated_apps)
    for migration, _backwards in executor.migration_plan(executor.loader.graph.leaf_nodes(), clean_start=True):
        for operation in migration.operations:
            operation.state_forwards(migration.app_label, state)
            for part in database_parts(operation):
                if isinstance(part, RunSQL):
                    tables |= made_by_sql(part)
            # An operation changes models of its own app alone.
            own = ((key, model) for key, model in state.models.items() if key[0] == migration.app_label)
            tables.update(name for key, model in own for name in tables_of(key, model))
    return frozenset(tables)


def states_before(
    executor: MigrationExecutor, wanted: set[Migration], *, renders: bool = True
) -> dict[Migration, ProjectState]:
    """Return the state before each of these migrations, computed in one pass as Django does for backwards plans.

    Args:
        executor: with every migration as recorded.
        wanted: applied ones.
        renders: whether models are made of the states, which takes most of the time.
    """
    loader = executor.loader
    applied = {loader.graph.nodes[key] for key in loader.applied_migrations if key in loader.graph.nodes}
    states: dict[Migration, ProjectState] = {}
    state = ProjectState(real_apps=loader.unmigrated_apps)
    for migration, _backwards in executor.migration_plan(loader.graph.leaf_nodes(), clean_start=True):
        if len(states) == len(wanted):
            break
        if migration in wanted:
            if not states and renders:
                state.apps  # noqa: B018 - rendered once here, and carried on from migration to migration
            states[migration] = state
            state = migration.mutate_state(state, preserve=True)
        elif migration in applied:
            migration.mutate_state(state, preserve=False)
    return states


def states_of(migration: Migration, before: ProjectState) -> list[ProjectState]:
    """Return the project's state before each operation of a migration, and after the last."""
    states = [before.clone()]
    for operation in migration.operations:
        states.append(states[-1].clone())
        operation.state_forwards(migration.app_label, states[-1])
    return states


@contextmanager
def rendered_afresh(operations: Iterable[Operation]) -> Iterator[None]:
    """Give reverse code models that were rendered for it alone.

    States that are carried on share models, some of which then refer to models of another state: deleting through them
    fails with "Cannot query …: Must be … instance". Schema operations do not query, and need not wait for a rendering.
    """
    watched = [part for operation in operations for part in database_parts(operation) if isinstance(part, RunPython)]
    for operation in watched:
        run = operation.database_backwards

        def backwards(
            app_label: str,
            editor: BaseDatabaseSchemaEditor,
            from_state: ProjectState,
            to_state: ProjectState,
            run: Callable[..., None] = run,
        ) -> None:
            models = {key: model.clone() for key, model in from_state.models.items()}
            run(app_label, editor, ProjectState(models=models, real_apps=from_state.real_apps), to_state)

        operation.__dict__["database_backwards"] = backwards
    try:
        yield
    finally:
        for operation in watched:
            operation.__dict__.pop("database_backwards", None)
