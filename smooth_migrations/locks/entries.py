"""How many entries of PostgreSQL's lock table migrations take, told from the project's state and the catalogue.

An entry is one locked object, in however many modes it is locked (PostgreSQL manual, max_locks_per_transaction), and a
transaction keeps every one of them to its end, those of dropped objects too. What takes entries was read from pg_locks
on PostgreSQL 18, which locks types and constraints that older servers leave alone: for those the count is high.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations import operations
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import CheckConstraint
from django.db.models.fields import AutoFieldMixin

from smooth_migrations.halves import is_split
from smooth_migrations.locks.tables import (
    AnyField,
    auto_table_of,
    has_table,
    models_of,
    referred,
    referrers,
    refers_to,
    table_of,
)
from smooth_migrations.operations.fields import in_database
from smooth_migrations.reversibility import database_parts

__all__ = ["Touched", "existing_relations", "lock_entries", "touch"]

_TABLE = "table"

# The transaction and its schema, and what Django reads at the end: content types, permissions.
_SESSION = 16
# Tables outside every state: their relations, type and key where they are not there yet.
_BESIDE = {"django_migrations": 8, "smooth_migrations_marker": 8}
# A foreign key is two triggers on either table, and the constraint.
_KEY_DROPPED = 5
# A rewritten table has a second one beside it, with its TOAST table and that one's index.
_REWRITTEN = 4
# What keeps a second column equal: a trigger, its function, and what that is written in.
_SECOND_COLUMN = 4
# RunPython and RunSQL say nothing of what they do: they are taken to read the tables of their app, about so many
# relations of them, and SQL to make an index or a constraint or two besides.
_READ_AT_MOST = 64
_BY_SQL = 4
# PostgreSQL gives a table a TOAST table where a row may be longer (TOAST_TUPLE_THRESHOLD), header included.
_ROW_WITHOUT_TOAST = 2000
_FIXED = re.compile(r"bool|(small|big)?(int|serial)|double|real|date|time|uuid|interval|numeric")
_VARCHAR = re.compile(r"(?:varchar|char)\((\d+)\)")
_BYTES_PER_CHARACTER = 4

# A table and its indexes, its TOAST table and that one's index; a partitioned table's partitions have the like.
_EXISTING = """
    SELECT c.relname,
           (1 + (SELECT count(*) FROM pg_inherits h WHERE h.inhparent = c.oid))
           * (1 + (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid)
              + CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE 2 END)
    FROM pg_class c
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace <> 'pg_catalog'::regnamespace AND pg_table_is_visible(c.oid)
"""


@dataclass(frozen=True, slots=True)
class _Object:
    """Something that is locked by itself: `table` it belongs to, `kind`, and the `name` or columns it has there."""

    table: str
    kind: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Touched:
    """What an operation locks.

    Args:
        known: the objects of the tables it changes, as the state before it knows them.
        made: the objects it makes.
        read: tables that it may read.
        passing: how many more objects: dropped, replaced, or never in a state.
    """

    known: frozenset[_Object] = frozenset()
    made: frozenset[_Object] = frozenset()
    read: frozenset[str] = frozenset()
    passing: int = 0


def existing_relations(connection: BaseDatabaseWrapper) -> dict[str, int]:
    """Return how many relations each table of a PostgreSQL database has, itself included. Reads the catalogue once."""
    with connection.cursor() as cursor:
        cursor.execute(_EXISTING)
        return {str(table): int(count) for table, count in cursor.fetchall()}


def lock_entries(touched: Iterable[Touched], existing: Mapping[str, int]) -> int:
    """Return about how many lock-table entries one transaction takes, rather too many than too few. Pure.

    A table that exists is counted with all its indexes, whatever is done to it: some of these locks need no entry as
    long as a session has few of them (fast path), but how many depends on the server's version.

    Args:
        touched: what the transaction's operations lock.
        existing: how many relations each existing table has.
    """
    objects: set[_Object] = set()
    tables: set[str] = set()
    read: set[str] = set()
    passing = 0
    for part in touched:
        objects |= part.made
        objects.update(item for item in part.known if item.table not in existing)
        tables.update(item.table for item in part.known)
        read |= part.read
        passing += part.passing
    # The other side of a key is locked alone, without its indexes.
    objects -= {_Object(table, _TABLE) for table in tables if table in existing}
    changed = sum(existing[table] for table in tables if table in existing)
    only_read = sum(existing[table] for table in read - tables if table in existing)
    beside = sum(count for table, count in _BESIDE.items() if table not in existing)
    return _SESSION + beside + len(objects) + changed + min(only_read, _READ_AT_MOST) + passing


def touch(operation: Operation, app_label: str, state: ProjectState, connection: BaseDatabaseWrapper) -> list[Touched]:
    """Move the state past an operation and return what that locks.

    Args:
        operation: what will run.
        app_label: of its migration.
        state: the project's state before it; moved.
        connection: whose column types are asked for; not used to connect.
    """
    if isinstance(operation, operations.SeparateDatabaseAndState):
        # Its database half sees a state of its own, as in Django.
        database = state.clone() if operation.database_operations else state
        touched = [_touch(part, app_label, database, connection) for part in database_parts(operation)]
        operation.state_forwards(app_label, state)
        return touched
    return [_touch(operation, app_label, state, connection)]


def _touch(operation: Operation, app_label: str, state: ProjectState, connection: BaseDatabaseWrapper) -> Touched:
    keys = [(app_label, name) for name in models_of(operation)]
    if not keys:
        operation.state_forwards(app_label, state)
        read = frozenset(table_of(model) for (label, _name), model in state.models.items() if label == app_label)
        return Touched(read=read, passing=0 if isinstance(operation, operations.RunPython) else _BY_SQL)
    passing = _passing(operation, app_label, state, connection)
    before = _objects(keys, state, connection)
    changed = _changed(operation, keys[0], state)
    known = frozenset(item for item in before if item.table in changed)
    operation.state_forwards(app_label, state)
    if isinstance(operation, operations.RenameModel | operations.RenameField | operations.AlterModelTable):
        # The same objects under another name.
        return Touched(known, passing=passing)
    return Touched(known, made=_objects(keys, state, connection) - before, passing=passing)


def _changed(operation: Operation, key: tuple[str, str], state: ProjectState) -> set[str]:
    """Return the tables that an operation on a model changes: its own, and of its many-to-many ones those meant."""
    model = state.models.get(key)
    if model is None or isinstance(operation, operations.AlterModelOptions | operations.AlterModelManagers):
        return set()
    if isinstance(operation, operations.DeleteModel | operations.RenameModel | operations.AlterModelTable):
        meant = set(model.fields)
    else:
        meant = {str(getattr(operation, name, "")) for name in ("name", "old_name")}
    fields = ((name, field) for name, field in model.fields.items() if name in meant)
    return {table_of(model)} | {auto_table_of(model, name, field) for name, field in fields if field.many_to_many}


# --- the objects of a table ------------------------------------------------------------------------------------------


def _objects(
    keys: Iterable[tuple[str, str]], state: ProjectState, connection: BaseDatabaseWrapper
) -> frozenset[_Object]:
    return frozenset(
        item for key in keys if key in state.models for item in _objects_of(state.models[key], state, connection)
    )


def _objects_of(model: ModelState, state: ProjectState, connection: BaseDatabaseWrapper) -> Iterator[_Object]:
    if not has_table(model):
        return
    table = table_of(model)
    yield from (_Object(table, _TABLE), _Object(table, "type"))
    row_bytes = 0
    for name, field in model.fields.items():
        if field.many_to_many:
            yield from _objects_of_auto_table(model, name, field, state)
            continue
        type_ = _column_type(field, connection)
        row_bytes += _longest(type_)
        yield from _objects_of_column(table, model, name, field, type_, state)
    if row_bytes > _ROW_WITHOUT_TOAST:
        yield from (_Object(table, "toast"), _Object(table, "toast index"))
    yield from _objects_of_options(table, model.options)


def _objects_of_column(
    table: str, model: ModelState, name: str, field: AnyField, type_: str, state: ProjectState
) -> Iterator[_Object]:
    indexed = field.primary_key or field.unique
    if isinstance(field, AutoFieldMixin):
        yield _Object(table, "sequence", name)
    if indexed:
        yield from (_Object(table, "index", name), _Object(table, "constraint", name))
    elif field.db_index:
        yield _Object(table, "index", name)
    if (indexed or field.db_index) and type_.startswith(("varchar", "text")):
        yield _Object(table, "like index", name)
    if field.remote_field is not None and getattr(field, "db_constraint", True):
        yield _Object(table, "foreign key", name)
        yield from _other_side(model, field, state)


def _objects_of_options(table: str, options: Mapping[str, Any]) -> Iterator[_Object]:
    for fields in options.get("unique_together") or ():
        yield from (_Object(table, "index", ",".join(fields)), _Object(table, "constraint", ",".join(fields)))
    for fields in options.get("index_together") or ():
        yield _Object(table, "plain index", ",".join(fields))
    for index in options.get("indexes") or ():
        yield _Object(table, "plain index", index.name)
    for constraint in options.get("constraints") or ():
        yield _Object(table, "constraint", constraint.name)
        if not isinstance(constraint, CheckConstraint):
            yield _Object(table, "index", constraint.name)


def _objects_of_auto_table(model: ModelState, name: str, field: AnyField, state: ProjectState) -> Iterator[_Object]:
    if field.remote_field.through is not None:
        return
    table = auto_table_of(model, name, field)
    for kind in (_TABLE, "type", "sequence"):
        yield _Object(table, kind)
    for kind in ("index", "constraint"):
        yield from (_Object(table, kind, "id"), _Object(table, kind, "both"))
    for side in ("from", "to"):
        yield from (_Object(table, "index", side), _Object(table, "foreign key", side))
    yield from _other_side(model, field, state)


def _other_side(model: ModelState, field: AnyField, state: ProjectState) -> Iterator[_Object]:
    other = state.models.get(referred(field, model))
    if other is not None:
        yield _Object(table_of(other), _TABLE)


def _column_type(field: AnyField, connection: BaseDatabaseWrapper) -> str:
    if field.remote_field is not None:
        return "bigint"
    try:
        return str(field.db_type(connection) or "")
    except Exception:  # noqa: BLE001 - a field outside any model may not know: then it is as long as can be
        return "text"


def _longest(type_: str) -> int:
    if not type_ or (_FIXED.match(type_) and not type_.endswith("]")):
        return 16
    varchar = _VARCHAR.match(type_)
    return int(varchar[1]) * _BYTES_PER_CHARACTER if varchar else _ROW_WITHOUT_TOAST + 1


# --- what passes ------------------------------------------------------------------------------------------------------


def _passing(operation: Operation, app_label: str, state: ProjectState, connection: BaseDatabaseWrapper) -> int:
    """Count what is locked and in no state: defaults, checks of NOT NULL, triggers, what is replaced by its like."""
    count = 1
    match operation:
        case operations.RemoveField():
            key = (app_label, operation.model_name_lower)
            count = 2 + _dropped(state.models[key].fields[operation.name])
        case operations.AlterField():
            count = _altered(operation, app_label, state, connection)
        case operations.DeleteModel():
            key = (app_label, operation.name_lower)
            model = state.models[key]
            own = sum(1 + _dropped(field) for field in model.fields.values())
            count = 1 + own + (1 + _KEY_DROPPED) * len(referrers(key, state))
        case operations.RenameModel():
            count = (1 + _KEY_DROPPED) * len(referrers((app_label, operation.old_name_lower), state))
        case operations.RenameField():
            model = state.models[app_label, operation.model_name_lower]
            count = 2 + _dropped(model.fields[operation.old_name])
            if is_split(operation):
                indexes = [item for item in _objects_of(model, state, connection) if "index" in item.kind]
                count += _SECOND_COLUMN + len(indexes)
        case operations.CreateModel() | operations.AlterModelOptions() | operations.AlterModelManagers():
            count = 0
    return count


def _dropped(field: AnyField) -> int:
    if field.many_to_many:
        return 2 * _KEY_DROPPED + 4
    return _KEY_DROPPED if field.remote_field is not None else 0


def _altered(
    operation: operations.AlterField, app_label: str, state: ProjectState, connection: BaseDatabaseWrapper
) -> int:
    key = (app_label, operation.model_name_lower)
    model, new = state.models[key], operation.field
    old = model.fields[operation.name]
    if in_database(old) == in_database(new):
        return 0
    count = 1 + (1 + _KEY_DROPPED if old.remote_field is not None else 0)
    old_type, new_type = _column_type(old, connection), _column_type(new, connection)
    if old_type == new_type:
        return count
    if not (old_type.startswith("varchar") and new_type.startswith(("varchar", "text"))):
        count += _REWRITTEN
    count += 2 * sum(
        operation.name in item.name.split(",") for item in _objects_of(model, state, connection) if item.name
    )
    # Each key that refers to it is dropped, its column altered likewise, and the key made again.
    referring = [field for _key, field in referrers(key, state) if refers_to(field, operation.name, old)]
    return count + (2 + 2 * _KEY_DROPPED + _REWRITTEN) * len(referring)
