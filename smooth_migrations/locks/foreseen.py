"""Which strong locks operations take on tables that others use, told from the states of the tables around them.

What Django's schema editor locks, and how strongly, was read from pg_locks on PostgreSQL 18. RunPython, RunSQL and
operations of other packages say nothing of what they lock, and nothing is foreseen of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import (
    AlterField,
    AlterModelTable,
    CreateModel,
    DeleteModel,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import UniqueConstraint

from smooth_migrations.halves import placed_of
from smooth_migrations.locks.modes import Locks, Mode, together
from smooth_migrations.locks.tables import AnyField, auto_table_of, has_table, models_of, referred, referrers, table_of
from smooth_migrations.operations.fields import in_database
from smooth_migrations.reversibility import database_parts

__all__ = ["TellsLocks", "foreseen", "locks_between"]

# What no column is told of, beside what Django itself leaves out (Field.non_db_attrs): no SQL alters such a field.
_IN_PYTHON = frozenset(
    {"auto_now", "auto_now_add", "decoder", "default", "encoder", "height_field", "storage", "upload_to", "width_field"}
)


@runtime_checkable
class TellsLocks(Protocol):
    """An operation of ours that changes tables beside what any state knows of them."""

    def locks(self, *, backwards: bool) -> Locks:
        """Return the strong locks that it takes. Pure."""


@dataclass(frozen=True, slots=True)
class _Link:
    """The table that a relation to many has of its own.

    Args:
        name: its name.
        other: the table on the other side.
        is_checked: whether it has foreign keys.
    """

    name: str
    other: str
    is_checked: bool

    def tables_dropped(self, own: str) -> tuple[str, ...]:
        """Return the tables that are locked where it goes, of the one that has it too."""
        return (self.name, own, self.other) if self.is_checked else (self.name,)


@dataclass(frozen=True, slots=True)
class _Table:
    """What a state knows of a model's table.

    Args:
        name: its name.
        columns: the fields that are kept in it, by their columns.
        keys: the tables that its foreign keys refer to, by their columns.
        links: the tables of its relations to many, by fields.
        indexes: those that have a name.
        rules: constraints, likewise; and what else of a table is told by no field.
        referrers: the tables that refer to it, each with the column that it refers to.
    """

    name: str
    columns: Mapping[str, AnyField]
    keys: Mapping[str, str]
    links: Mapping[str, _Link]
    indexes: frozenset[str]
    rules: Mapping[str, Any]
    referrers: frozenset[tuple[str, str]]


def foreseen(
    connection: BaseDatabaseWrapper, plan: Sequence[tuple[Migration, bool]], executor: MigrationExecutor
) -> list[tuple[Migration, Locks]]:
    """Return what each migration of a plan locks strongly, if it runs as it is placed. Only reads.

    Args:
        connection: the database's.
        plan: migrations, each with whether it goes back, in order.
        executor: of the database.
    """
    wanted = {(migration.app_label, migration.name): (migration, backwards) for migration, backwards in plan}
    found: dict[Migration, Locks] = {}
    loader = executor.loader
    state = ProjectState(real_apps=loader.unmigrated_apps)
    for node, _backwards in executor.migration_plan(loader.graph.leaf_nodes(), clean_start=True):
        key = (node.app_label, node.name)
        if key in wanted:
            migration, backwards = wanted[key]
            found[migration] = together(_of_migration(migration, state, connection, backwards=backwards))
        elif key in loader.applied_migrations:
            node.mutate_state(state, preserve=False)
    return [(migration, found.get(migration, {})) for migration, _backwards in plan]


def _of_migration(
    migration: Migration, state: ProjectState, connection: BaseDatabaseWrapper, *, backwards: bool
) -> Iterator[Locks]:
    label = migration.app_label
    for operation in migration.operations:
        placed = placed_of(operation)
        if placed is None:
            yield from _moving(operation, label, state, connection, backwards=backwards)
            continue
        operation.state_forwards(label, state)
        if placed.is_void:
            continue
        parts = placed.split.expand() if placed.split is not None else (placed.operation,)
        for number, part in enumerate(parts):
            before, after = placed.states[number], placed.states[number + 1]
            yield locks_between(part, label, before, after, connection, backwards=backwards)


def _moving(
    operation: Operation, label: str, state: ProjectState, connection: BaseDatabaseWrapper, *, backwards: bool
) -> Iterator[Locks]:
    """Yield the locks of an operation, and move the state past it."""
    if isinstance(operation, SeparateDatabaseAndState):
        database = state.clone() if operation.database_operations else state
        for part in database_parts(operation):
            yield from _moving(part, label, database, connection, backwards=backwards)
        operation.state_forwards(label, state)
        return
    before = _tables(operation, label, state)
    operation.state_forwards(label, state)
    after = _tables(operation, label, state)
    yield _locks(operation, before, after, connection, backwards=backwards)


def locks_between(
    operation: Operation,
    label: str,
    before: ProjectState,
    after: ProjectState,
    connection: BaseDatabaseWrapper,
    *,
    backwards: bool = False,
) -> Locks:
    """Return the strong locks of an operation between two states. Pure.

    Args:
        operation: which.
        label: the app of its migration.
        before: the state before it, wherever it goes.
        after: the one after it.
        connection: asked for the types of columns; not used to connect.
        backwards: whether it goes back.
    """
    one, other = _tables(operation, label, before), _tables(operation, label, after)
    return _locks(operation, one, other, connection, backwards=backwards)


def _locks(
    operation: Operation,
    before: _Table | None,
    after: _Table | None,
    connection: BaseDatabaseWrapper,
    *,
    backwards: bool,
) -> Locks:
    told = operation.locks(backwards=backwards) if isinstance(operation, TellsLocks) else {}
    way = (after, before) if backwards else (before, after)
    return together([told, *({table: mode} for table, mode in _between(*way, connection))])


def _between(
    before: _Table | None, after: _Table | None, connection: BaseDatabaseWrapper
) -> Iterator[tuple[str, Mode]]:
    if before is None:
        if after is not None:
            for other in (*after.keys.values(), *(link.other for link in after.links.values())):
                yield other, Mode.SHARE_ROW_EXCLUSIVE
    elif after is None:
        yield before.name, Mode.ACCESS_EXCLUSIVE
        for other in (*before.keys.values(), *(table for table, _column in before.referrers)):
            yield other, Mode.ACCESS_EXCLUSIVE
        for link in before.links.values():
            yield from ((table, Mode.ACCESS_EXCLUSIVE) for table in link.tables_dropped(before.name))
    else:
        yield from _of_name(before, after)
        yield from _of_columns(before, after, connection)
        yield from _of_links(before, after)
        yield from _of_rules(before, after)


def _of_name(before: _Table, after: _Table) -> Iterator[tuple[str, Mode]]:
    if before.name != after.name:
        links = (link.name for link in before.links.values())
        for table in (before.name, *links, *(table for table, _column in before.referrers)):
            yield table, Mode.ACCESS_EXCLUSIVE


def _of_columns(before: _Table, after: _Table, connection: BaseDatabaseWrapper) -> Iterator[tuple[str, Mode]]:
    gone, made = before.columns.items() - after.columns.items(), after.columns.items() - before.columns.items()
    olds, news = dict(gone), dict(made)
    for column in olds.keys() | news.keys():
        if column in olds and column in news and _differing(olds[column], news[column]) <= _IN_PYTHON:
            continue
        yield before.name, _of_column(olds.get(column), news.get(column))
        if column in before.keys:
            yield before.keys[column], Mode.ACCESS_EXCLUSIVE
        if column in after.keys:
            yield after.keys[column], Mode.SHARE_ROW_EXCLUSIVE
        if column in olds and column in news and _type(olds[column], connection) != _type(news[column], connection):
            yield from ((table, Mode.ACCESS_EXCLUSIVE) for table, to in before.referrers if to == column)


def _of_column(old: AnyField | None, new: AnyField | None) -> Mode:
    """Return how a table is locked where one of its columns changes."""
    if old is None or new is None:
        return Mode.ACCESS_EXCLUSIVE
    names = _differing(old, new) - _IN_PYTHON
    if names == {"db_constraint"} and new.db_constraint:
        return Mode.SHARE_ROW_EXCLUSIVE
    return Mode.SHARE if names == {"db_index"} and new.db_index else Mode.ACCESS_EXCLUSIVE


def _differing(old: AnyField, new: AnyField) -> set[str]:
    """Return the names of the arguments that two fields differ in, and "class" where they are of different ones."""
    (path, arguments, before), (now, given, after) = in_database(old), in_database(new)
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return names if (path, arguments) == (now, given) else {*names, "class"}


def _of_links(before: _Table, after: _Table) -> Iterator[tuple[str, Mode]]:
    for name in before.links.keys() | after.links.keys():
        old, new = before.links.get(name), after.links.get(name)
        if old is not None and (new is None or old.is_checked > new.is_checked):
            yield from ((table, Mode.ACCESS_EXCLUSIVE) for table in old.tables_dropped(before.name))
        elif new is not None and (old is None or old.is_checked < new.is_checked):
            yield from ((table, Mode.SHARE_ROW_EXCLUSIVE) for table in (before.name, new.name, new.other))


def _of_rules(before: _Table, after: _Table) -> Iterator[tuple[str, Mode]]:
    if before.indexes - after.indexes:
        yield before.name, Mode.ACCESS_EXCLUSIVE
    elif after.indexes - before.indexes:
        yield before.name, Mode.SHARE
    for name in before.rules.keys() | after.rules.keys():
        old, new = before.rules.get(name), after.rules.get(name)
        if old != new:
            yield before.name, Mode.SHARE if old is None and _is_index(new) else Mode.ACCESS_EXCLUSIVE


def _is_index(rule: Any) -> bool:  # noqa: ANN401 - a constraint's attributes differ, and some have no stubs
    """Return whether Django makes an index of a constraint, and no constraint of the server's."""
    return isinstance(rule, UniqueConstraint) and any(
        getattr(rule, name, None) for name in ("condition", "include", "opclasses", "expressions")
    )


# --- what a state knows -----------------------------------------------------------------------------------------------


def _tables(operation: Operation, label: str, state: ProjectState) -> _Table | None:
    """Return what a state knows of the table of the model that an operation changes."""
    for name in models_of(operation):
        model = state.models.get((label, name))
        if model is not None:
            return _table(model, state, is_referred=_may_be_referred(operation)) if has_table(model) else None
    return None


def _may_be_referred(operation: Operation) -> bool:
    # Whoever refers to it is of no account to the others, and takes long to be found.
    return isinstance(operation, AlterField | AlterModelTable | CreateModel | DeleteModel | RenameModel)


def _table(model: ModelState, state: ProjectState, *, is_referred: bool) -> _Table:
    columns: dict[str, AnyField] = {}
    keys: dict[str, str] = {}
    links: dict[str, _Link] = {}
    fields: Mapping[str, AnyField] = model.fields
    for name, field in fields.items():
        other = _other_side(field, model, state)
        if field.many_to_many:
            if field.remote_field.through is None and other is not None:
                is_checked = bool(field.remote_field.db_constraint)
                links[name] = _Link(auto_table_of(model, name, field), other, is_checked)
            continue
        columns[_column(name, field)] = field
        if other is not None and getattr(field, "db_constraint", False):
            keys[_column(name, field)] = other
    options = model.options
    rules: dict[str, Any] = {rule.name: rule for rule in options.get("constraints") or ()}
    rules |= {f"unique {fields}": True for fields in options.get("unique_together") or ()}
    rules |= {"order": options["order_with_respect_to"]} if options.get("order_with_respect_to") else {}
    indexes = {str(index.name) for index in options.get("indexes") or ()}
    indexes |= {f"together {fields}" for fields in options.get("index_together") or ()}
    referring = _referrers(model, state) if is_referred else frozenset()
    return _Table(table_of(model), columns, keys, links, frozenset(indexes), rules, referring)


def _referrers(model: ModelState, state: ProjectState) -> frozenset[tuple[str, str]]:
    found = set()
    for key, field in referrers((model.app_label, model.name_lower), state):
        other = state.models[key]
        if not has_table(other):
            continue
        if not field.many_to_many:
            to = getattr(field.remote_field, "field_name", None) or _primary_key(model)
            found.add((table_of(other), to))
        elif field.remote_field.through is None:
            found.add((auto_table_of(other, field.name or "", field), _primary_key(model)))
    return frozenset(found)


def _primary_key(model: ModelState) -> str:
    return next((_column(name, field) for name, field in model.fields.items() if field.primary_key), "id")


def _other_side(field: AnyField, model: ModelState, state: ProjectState) -> str | None:
    if field.remote_field is None:
        return None
    other = state.models.get(referred(field, model))
    return table_of(other) if other is not None else None


def _column(name: str, field: AnyField) -> str:
    return str(field.db_column or (f"{name}_id" if field.remote_field is not None else name))


def _type(field: AnyField, connection: BaseDatabaseWrapper) -> str:
    if field.remote_field is not None:
        return ""
    try:
        return str(field.db_type(connection))
    except Exception:  # noqa: BLE001 - a field outside any model may not know
        return ""
