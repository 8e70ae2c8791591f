"""What could not be taken back, found before anything runs.

Inside one transaction everything can. Only migrations that must be committed before the decision are looked at.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import truncate_name
from django.db.migrations import Migration
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.operations import (
    AddField,
    AlterField,
    AlterOrderWithRespectTo,
    CreateModel,
    DeleteModel,
    RemoveField,
    RenameField,
    RenameModel,
    SeparateDatabaseAndState,
)
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from smooth_migrations.conversions import changes_type, shortening, stored
from smooth_migrations.halves import is_split
from smooth_migrations.reversibility import SCHEMA, database_parts
from smooth_migrations.undo.states import states_before, states_of

__all__ = ["Tables", "irreversible_operations", "irreversible_steps"]

if TYPE_CHECKING:
    from django.db.models import Field

    _Field = Field[Any, Any]

_Key = tuple[str, str]
_ORDER_LOST = "the order of its rows would be lost"


class Tables:
    """Which table of now belongs to a model of another moment: what is renamed meanwhile is followed.

    Args:
        connection: where they are. Only reads.
        state: the project's state now.
    """

    def __init__(self, connection: BaseDatabaseWrapper, state: ProjectState) -> None:
        self._connection = connection
        self._names = {key: _table_of(connection, state, key) for key in state.models}
        self._added: set[tuple[_Key, str]] = set()
        # Of these, those that code may have filled.
        self._seen: set[tuple[_Key, str]] = set()

    def follow(self, operation: Operation, app_label: str, state: ProjectState, *, backwards: bool = False) -> None:
        """Go past an operation.

        Args:
            operation: which.
            app_label: of its migration.
            state: the project's state at its end, or at its beginning where it goes backwards.
            backwards: whether it does.
        """
        for part in _state_parts(operation):
            if isinstance(part, RenameModel):
                ends = (app_label, part.old_name_lower), (app_label, part.new_name_lower)
                old, new = reversed(ends) if backwards else ends
                if old in self._names:
                    self._names[new] = self._names.pop(old)
            elif isinstance(part, CreateModel | DeleteModel):
                key = (app_label, part.name_lower)
                if key in state.models:
                    # Perhaps of a table that was there already, as where the state alone is changed.
                    self._names[key] = _table_of(self._connection, state, key)
                else:
                    self._names.pop(key, None)
        if not backwards:
            self._note_added(operation, app_label)

    def _note_added(self, operation: Operation, app_label: str) -> None:
        for part in database_parts(operation):
            if isinstance(part, AddField):
                self._added.add(((app_label, part.model_name_lower), part.name_lower))
            elif isinstance(part, RemoveField):
                self._added.discard(((app_label, part.model_name_lower), part.name_lower))
            elif isinstance(part, RenameField | RenameModel):
                self._added.clear()
            elif type(part).__module__ not in SCHEMA:
                self._seen |= self._added

    def have_added(self, key: _Key, name: str) -> bool:
        """Return whether the same plan has added a field: it had no values that would have to come back."""
        return (key, name.lower()) in self._added

    def have_rows(self, key: _Key, condition: str = "TRUE") -> bool:
        """Return whether a model of the moment has such rows now; one that cannot be looked at may have some."""
        table = self._names.get(key)
        if table is None:
            return True
        try:
            with self._connection.cursor() as cursor:
                if table not in self._connection.introspection.table_names(cursor):
                    return False
                quoted = self._connection.ops.quote_name(table)
                with transaction.atomic(self._connection.alias):
                    cursor.execute(f"SELECT 1 FROM {quoted} WHERE {condition} LIMIT 1")  # noqa: S608 - quoted
                    return cursor.fetchone() is not None
        except DatabaseError:
            return True

    def lose(self, key: _Key, name: str, old: "_Field", new: "_Field", state: ProjectState) -> bool:
        """Return whether a model's rows may have values now that a field has, and does not give back as another one.

        Args:
            key: of the model.
            name: of the field.
            old: as it is.
            new: as it becomes.
            state: of the project, which has what relations refer to.
        """
        is_added = self.have_added(key, name)
        if is_added and (key, name.lower()) not in self._seen:
            return False
        if changes_type(self._connection, old, new) or (old.null and not new.null and not is_added):
            return self.have_rows(key)
        if old.remote_field is not None and new.remote_field is not None:
            column = old.db_column or f"{name}_id"
            old, new = stored(old, state), stored(new, state)
            if old.get_internal_type() != new.get_internal_type() and changes_type(self._connection, old, new):
                return self.have_rows(key)
        else:
            column = old.db_column or name
        condition = shortening(self._connection, old, new, column=self._connection.ops.quote_name(column))
        return condition is not None and self.have_rows(key, condition)


def irreversible_steps(
    connection: BaseDatabaseWrapper, plan: Sequence[tuple[Migration, bool]], early: Sequence[Migration]
) -> Iterator[tuple[Migration, str]]:
    """Describe what a plan does that could not be taken back, with the migration that does it.

    Args:
        connection: the target's. Only reads.
        plan: (migration, backwards) in order, all in one direction.
        early: those that become permanent before the call is over.
    """
    executor = MigrationExecutor(connection)
    # The one way to it that Django's own migrate takes.
    state = executor._create_project_state(with_applied_migrations=True)  # type: ignore[attr-defined]  # noqa: SLF001
    tables = Tables(connection, state)
    is_backwards = bool(plan) and plan[0][1]
    states = states_before(executor, {*early}) if is_backwards else {}
    for migration in early:
        if is_backwards:
            found = _lost_backwards(migration, states[migration], tables)
        else:
            found = irreversible_operations(migration, state, tables)
        yield from ((migration, text) for text in found)


def irreversible_operations(migration: Migration, state: ProjectState, tables: Tables) -> Iterator[str]:
    """Describe the operations of one migration whose reverse would fail or lose something.

    Args:
        migration: what would run forwards.
        state: the project's state before it; it is moved past the migration.
        tables: as they are then; moved past it too.
    """
    app_label = migration.app_label
    for operation in migration.operations:
        for part in () if is_split(operation) else database_parts(operation):
            reason = _reason(part, app_label, state, tables)
            if reason:
                yield f"{operation.describe()} ({reason})"
        operation.state_forwards(app_label, state)
        tables.follow(operation, app_label, state)


def _lost_backwards(migration: Migration, state: ProjectState, tables: Tables) -> Iterator[str]:
    """Describe what is lost where a migration is unapplied, and applied again by an undo."""
    app_label = migration.app_label
    states = states_of(migration, state)
    for number, operation in reversed([*enumerate(migration.operations)]):
        before, after = states[number], states[number + 1]
        for part in database_parts(operation):
            reason = _reason_backwards(part, app_label, before, after, tables)
            if reason:
                yield f"{operation.describe()}, taken back ({reason})"
        tables.follow(operation, app_label, before, backwards=True)


def _state_parts(operation: Operation) -> Iterator[Operation]:
    if isinstance(operation, SeparateDatabaseAndState):
        for part in operation.state_operations:
            yield from _state_parts(part)
    else:
        yield operation


def _reason(operation: Operation, app_label: str, state: ProjectState, tables: Tables) -> str | None:
    if not operation.reversible:
        return "it has no reverse code"
    if isinstance(operation, RemoveField):
        key, what = (app_label, operation.model_name_lower), f"the values of {operation.name} would be lost"
    elif isinstance(operation, DeleteModel):
        key, what = (app_label, operation.name_lower), "its rows would be lost"
    elif isinstance(operation, AlterOrderWithRespectTo):
        key, what = (app_label, operation.name_lower), _ORDER_LOST
        if operation.order_with_respect_to or not _is_ordered(state, key):
            return None
    elif isinstance(operation, AlterField):
        key = (app_label, operation.model_name_lower)
        return _altered(tables, operation.name, key, _field(state, key, operation.name), operation.field, state)
    else:
        return None
    return what if tables.have_rows(key) else None


def _reason_backwards(
    operation: Operation, app_label: str, before: ProjectState, after: ProjectState, tables: Tables
) -> str | None:
    if isinstance(operation, AddField):
        key, what = (app_label, operation.model_name_lower), f"the values of {operation.name} would be lost"
    elif isinstance(operation, CreateModel):
        key, what = (app_label, operation.name_lower), "its rows would be lost"
    elif isinstance(operation, AlterOrderWithRespectTo):
        key, what = (app_label, operation.name_lower), _ORDER_LOST
        if _is_ordered(before, key) or not _is_ordered(after, key):
            return None
    elif isinstance(operation, AlterField):
        key = (app_label, operation.model_name_lower)
        old, new = (_field(state, key, operation.name) for state in (after, before))
        return _altered(tables, operation.name, key, old, new, before)
    else:
        return None
    return what if tables.have_rows(key) else None


def _altered(
    tables: Tables, name: str, key: _Key, old: "_Field | None", new: "_Field | None", state: ProjectState
) -> str | None:
    if old is None or new is None or old.many_to_many or new.many_to_many:
        return None
    return f"the values that {name} had would not come back" if tables.lose(key, name, old, new, state) else None


def _is_ordered(state: ProjectState, key: _Key) -> bool:
    model = state.models.get(key)
    return model is not None and bool(model.options.get("order_with_respect_to"))


def _field(state: ProjectState, key: _Key, name: str) -> "_Field | None":
    model = state.models.get(key)
    return model.fields.get(name) if model is not None else None


def _table_of(connection: BaseDatabaseWrapper, state: ProjectState, key: _Key) -> str:
    name = str(state.models[key].options.get("db_table") or "{}_{}".format(*key))
    return truncate_name(name, connection.ops.max_name_length())
